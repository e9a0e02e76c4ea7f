"""Reports how well a model reconstructs audio, compared with another model and baselines."""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Sequence
from typing import Any

from m2l_jax.audio.spectrogram import to_spectrogram
from m2l_jax.audio.suffixes import LeftOut
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.consistency.keys import random_key
from m2l_jax.evaluation import metrics, noise_bins
from m2l_jax.evaluation.clips import Clip, cut_clips, cut_crops
from m2l_jax.evaluation.reconstruction import reconstruct
from m2l_jax.interface.devices import compute_once
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import new_folder, write_json
from m2l_jax.interface.progress import ProgressBar

RELEASED = 'released'

_CROP_FRAMES = 64  # of the paper's training crops
_HUBER_SCALE, _DELTA = 0.00054, 1e-3  # c/√n, and the Δ at which the paper's schedule ends
_LABELS = {
    'mean': 'model',
    'untrained_mean': 'untrained',
    'shaped_noise_mean': 'shaped noise',
}

_logger = logging.getLogger(__name__)


def evaluate(
    checkpoint: str,
    inputs: str,
    output: str | os.PathLike[str],
    *,
    against: str | None = None,
    seconds: float = 4.0,
    media: int = 5,
    denoising_steps: int = 1,
    seed: int = 0,
) -> dict[str, Any]:
    """Writes `report.json`, and some pieces as WAV and PNG, into `output`; returns the report.

    Args:
      checkpoint: the model, as `EncoderDecoder` takes it.
      inputs: a file or folder; several with commas between.
      output: folder; made if missing.
      against: another model to measure in the same way; `RELEASED` for the authors' weights.
      seconds: of each piece.
      media: pieces to write.
      denoising_steps: evaluations of the model in decoding.
      seed: of the decoding noise, and of the untrained model.

    Raises:
      InputError: if a model or the audio cannot be read, or a model gives NaN.
    """
    options = {'denoising_steps': denoising_steps, 'seed': seed}
    codec = EncoderDecoder(checkpoint)
    rate = codec.config.spectrogram.sample_rate
    other = None if against is None else _open_other(against, rate)
    clips, left_out, skipped = cut_clips(inputs, rate, seconds)
    with new_folder(output) as folder:
        rows = _measure(codec, clips, 'the model', **options, folder=folder, media=media)
        untrained = codec.with_params(
            compute_once(lambda: codec.model.init_params(random_key(seed)))
        )
        report = {
            'checkpoint': checkpoint,
            'model': codec.model_id,
            'config': codec.config.record(),
            **options,
            'seconds': seconds,
            'mean': metrics.mean_figures(rows),
            'untrained_mean': _mean(untrained, clips, 'the untrained model', **options),
            'shaped_noise_mean': metrics.mean_figures(
                [
                    metrics.measure(clip.waveform, metrics.shaped_noise(clip.waveform), rate)
                    for clip in clips
                ]
            ),
            'by_noise_level': measure_noise_levels(codec, clips),
            'left_out': dataclasses.asdict(left_out),
            'skipped': skipped,
            'clips': {clip.name: row for clip, row in zip(clips, rows, strict=True)},
        }
        if other is not None:
            report['against'] = {
                'checkpoint': against,
                'model': other.model_id,
                'mean': _mean(other, clips, against, **options),
                'by_noise_level': measure_noise_levels(other, clips),
            }
        write_json(folder / 'report.json', report)
    return report


def describe_report(report: dict[str, Any]) -> str:
    """The means and what was left out, in lines."""
    lines = [f'{len(report["clips"])} pieces of {report["seconds"]:g} s, seed {report["seed"]}']
    rows = {label: report[name] for name, label in _LABELS.items()}
    latents = {'latents': report['by_noise_level']}
    if against := report.get('against'):
        name = against['checkpoint']
        rows[name] = against['mean']
        latents[f'{name}, latents'] = against['by_noise_level']
    width = max(map(len, (*rows, *latents)))
    lines += [f'{name:>{width}}: {metrics.describe(figures)}' for name, figures in rows.items()]
    lines += [
        f'{name:>{width}}: gain {figures["latent_gain"]:.3f}, of magnitudes '
        f'{figures["latent_gain_magnitude"]:.3f} (the least from σ = 5 on; 1 if unused), '
        f'spread {figures["latent_std"]:.3f}, {figures["latents_saturated"]:.1%} saturated'
        for name, figures in latents.items()
    ]
    lines += [f'skipped: {reason}' for reason in report['skipped'].values()]
    return '\n'.join(filter(None, (*lines, LeftOut(**report['left_out']).describe())))


def measure_noise_levels(
    codec: EncoderDecoder, clips: Sequence[Clip], crop_frames: int = _CROP_FRAMES
) -> dict[str, float]:
    """Loss, error and the latents' gain by noise level: see `noise_bins.name_figures`.

    Args:
      codec: the model.
      clips: all of one length.
      crop_frames: spectrogram frames of a crop; fewer of shorter clips.
    """
    spectrogram, least = codec.config.spectrogram, codec.config.time_downsampling
    fitting = min(spectrogram.frames(clips[0].waveform.shape[1]), crop_frames)
    if fitting < least:  # too few for a latent vector
        clips = [Clip(clip.name, codec.pad(clip.waveform)) for clip in clips]
    samples = spectrogram.samples(max(fitting // least, 1) * least)
    measure = noise_bins.make_measure(codec.model, _HUBER_SCALE, _DELTA)
    text = f'errors at {noise_bins.BINS} noise levels'
    with _progress(noise_bins.BINS, 'level', text) as advance:
        crops = to_spectrogram(cut_crops(clips, samples), spectrogram)
        figures = measure(codec.params, crops, advance)
    return noise_bins.name_figures(figures, codec.config.noise)


def _open_other(against: str, sample_rate: int) -> EncoderDecoder:
    other = EncoderDecoder(None if against == RELEASED else against)
    rate = other.config.spectrogram.sample_rate
    if rate != sample_rate:
        raise InputError(
            f'--against={against} is a model of {rate} Hz, --checkpoint one of {sample_rate} Hz: '
            'compare models of the same rate'
        )
    return other


def _measure(codec, clips, name, denoising_steps, seed, folder=None, media=0) -> list[dict]:
    """The figures of each clip; writes the first `media` clips into the folder."""
    rows = []
    with _progress(len(clips), 'piece', f'{len(clips)} pieces with {name}') as advance:
        for number, clip in enumerate(clips):
            result = reconstruct(codec, clip, denoising_steps, seed)
            rows.append(result.figures)
            if number < media:
                result.write(folder)
            advance()
    return rows


def _mean(*arguments, **options) -> dict[str, float]:
    return metrics.mean_figures(_measure(*arguments, **options))


@contextlib.contextmanager
def _progress(total: int, unit: str, text: str):
    """Logs that work begins and shows how far it is; yields what counts one as done."""
    _logger.info('measuring %s', text)
    with contextlib.closing(ProgressBar(total, unit)) as bar:
        yield lambda: bar.advance(1, text)

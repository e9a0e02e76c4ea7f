"""Reports how well models reconstruct audio, beside each other and beside baselines."""

import contextlib
import csv
import dataclasses
import functools
import logging
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from m2l_jax.audio.spectrogram import to_spectrogram
from m2l_jax.audio.suffixes import LeftOut
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.consistency.keys import random_key
from m2l_jax.evaluation import metrics, noise_bins, statistics
from m2l_jax.evaluation.baselines import shaped_noise
from m2l_jax.evaluation.clips import Clip, cut_clips, cut_crops
from m2l_jax.evaluation.listening.figures import Figures
from m2l_jax.evaluation.listening.page import is_playable, write_page
from m2l_jax.evaluation.listening.stimuli import Comparison
from m2l_jax.evaluation.listening.webmushra import write_webmushra
from m2l_jax.evaluation.reconstruction import Reconstruction, reconstruct
from m2l_jax.interface.devices import compute_once
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import new_folder, replaced_file, write_json
from m2l_jax.interface.progress import ProgressBar
from m2l_jax.interface.tables import format_table

RELEASED = 'released'
UNTRAINED, SHAPED_NOISE = 'untrained', 'shaped noise'

_CROP_FRAMES = 64  # of the paper's training crops
_HUBER_SCALE, _DELTA = 0.00054, 1e-3  # c/√n, and the Δ at which the paper's schedule ends
_LATENT_BITS = 16  # of a number, for the bits a second
_FURTHER = {
    'latent_gain': 'latent gain (least from σ = 5 on; 1 if unused)',
    'latent_gain_magnitude': 'of magnitudes',
    'latent_std': 'spread of the latents',
    'latents_saturated': 'part of the latents at -1 or 1',
    'times_real_time': 'times real time',
    'kilobits_a_second': 'kbit/s of a channel, latents in 16 bits',
}

_logger = logging.getLogger(__name__)


def evaluate(
    checkpoint: str,
    inputs: str,
    output: str | os.PathLike[str],
    *,
    against: Sequence[str] = (),
    seconds: float = 4.0,
    media: int = 5,
    denoising_steps: int = 1,
    seed: int = 0,
    seeds: int = 1,
    webmushra: bool = False,
) -> dict[str, Any]:
    """Writes `report.json`, `clips.csv`, and some pieces to listen to, into `output`.

    Args:
      checkpoint: the model, as `EncoderDecoder` takes it.
      inputs: a file or folder; several with commas between.
      output: folder; made if missing.
      against: other models to measure in the same way; `RELEASED` for the authors' weights.
      seconds: of each piece.
      media: pieces to write as WAV and PNG, and on a page, `index.html`, beside all models.
      denoising_steps: evaluations of the model in decoding.
      seed: of the decoding noise, and of the untrained model.
      seeds: decodings of each piece, from noise of `seed`, `seed` + 1, …; figures are their means.
      webmushra: write the pieces as a blind test for webMUSHRA too, into `webmushra`.

    Returns:
      The report. Its `systems` have, by name, `clips` with the figures of each piece, their `mean`,
      the `interval` of 95 % of it, `counted`, the pieces whose figure is finite, and
      `seed_spread`, the standard deviation of the mean over seeds.

    Raises:
      InputError: if a model or the audio cannot be read, or a model gives NaN.
    """
    if webmushra and not media:
        raise InputError('--webmushra writes the pieces of --media, which is 0: raise it')
    codecs = _open_models(checkpoint, against)
    codec = codecs[checkpoint]
    rate = codec.config.spectrogram.sample_rate
    clips, left_out, skipped = cut_clips(inputs, rate, seconds)
    codecs[UNTRAINED] = codec.with_params(
        compute_once(lambda: codec.model.init_params(random_key(seed)))
    )
    systems: dict[str, Any] = {}
    sounds: list[dict[str, np.ndarray]] = [{} for _ in clips[:media]]
    with new_folder(output) as folder:

        def take(name: str, number: int, result: Reconstruction) -> None:
            if number < len(sounds) and name != UNTRAINED:
                sounds[number][name] = result.waveform
            if number < len(sounds) and name == checkpoint:
                result.write(folder)

        for name, each in codecs.items():
            options = denoising_steps, range(seed, seed + seeds), functools.partial(take, name)
            systems[name] = _measure(each, clips, name, *options)
            if name != UNTRAINED:
                systems[name]['by_noise_level'] = measure_noise_levels(each, clips)
        noise = [
            metrics.measure(clip.waveform, shaped_noise(clip.waveform), rate, metrics.ALL_METRICS)
            for clip in clips
        ]
        systems[SHAPED_NOISE] = _summarise(clips, [noise])
        report = {
            'checkpoint': checkpoint,
            'denoising_steps': denoising_steps,
            'seeds': list(range(seed, seed + seeds)),
            'seconds': seconds,
            'systems': systems,
            'metrics': {name: metric.heading for name, metric in metrics.ALL_METRICS.items()},
            'left_out': dataclasses.asdict(left_out),
            'skipped': skipped,
        }
        write_json(folder / 'report.json', report)
        _write_csv(folder / 'clips.csv', systems, list(metrics.ALL_METRICS))
        figures = {name: system['clips'] for name, system in systems.items()}
        _write_listening(folder, clips, sounds, rate, figures, webmushra)
    return report


def describe_report(report: dict[str, Any]) -> str:
    """A table of the means, with their intervals, and what was left out, in lines."""
    systems = report['systems']
    count = len(systems[report['checkpoint']]['clips'])
    seeds = ', '.join(map(str, report['seeds']))
    rows = [(f'{count} pieces of {report["seconds"]:g} s, seed {seeds}', *systems)]
    for name, heading in report['metrics'].items():
        rows.append((heading, *(_cell(system, name, count) for system in systems.values())))
    for name, label in _FURTHER.items():
        values = [
            {**system, **system.get('by_noise_level', {})}.get(name) for system in systems.values()
        ]
        rows.append((label, *('' if value is None else f'{value:.4g}' for value in values)))
    lines = [format_table(rows), 'In brackets: the interval of 95 % of the mean over pieces.']
    lines += [f'skipped: {reason}' for reason in report['skipped'].values()]
    return '\n'.join(filter(None, (*lines, LeftOut(**report['left_out']).describe())))


def _cell(system: Mapping[str, Any], name: str, count: int) -> str:
    digits = metrics.ALL_METRICS[name].digits
    low, high = system['interval'][name]
    counted = system['counted'][name]
    of = '' if counted == count else f' of {counted}'
    return f'{system["mean"][name]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]{of}'


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


def _open_models(checkpoint: str, against: Sequence[str]) -> dict[str, EncoderDecoder]:
    """The models by the names that they were given."""
    if checkpoint in (UNTRAINED, SHAPED_NOISE):
        raise InputError(f'--checkpoint={checkpoint} is the name of a baseline: use ./{checkpoint}')
    codecs = {checkpoint: EncoderDecoder(checkpoint)}
    for name in against:
        if name in (*codecs, UNTRAINED, SHAPED_NOISE):
            raise InputError(f'--against={name}: that is measured already: name each model once')
        codecs[name] = EncoderDecoder(None if name == RELEASED else name)
        rate, first = (codecs[each].config.spectrogram.sample_rate for each in (name, checkpoint))
        if rate != first:
            raise InputError(
                f'--against={name} is a model of {rate} Hz, --checkpoint one of {first} Hz: '
                'compare models of the same rate'
            )
    return codecs


def _measure(
    codec: EncoderDecoder,
    clips: Sequence[Clip],
    name: str,
    denoising_steps: int,
    seeds: Sequence[int],
    take: Callable[[int, Reconstruction], None],
) -> dict[str, Any]:
    """A model's part of the report; `take` gets each clip's number and reconstruction, once."""
    config, figures, seconds = codec.config, [], []
    rate, per_latent = config.spectrogram.sample_rate, config.samples_per_latent
    with _progress(len(seeds) * len(clips), 'piece', f'{len(clips)} pieces with {name}') as advance:
        for seed in seeds:
            figures.append([])
            for number, clip in enumerate(clips):
                result = reconstruct(codec, clip, denoising_steps, seed, metrics.ALL_METRICS)
                figures[-1].append(result.figures)
                seconds.append(result.seconds / clip.waveform.size)
                if seed == seeds[0]:
                    take(number, result)
                advance()
    return {
        'model': codec.model_id,
        'config': config.record(),
        **_summarise(clips, figures),
        # The median: the first piece waits for programs to compile.
        'times_real_time': float(1 / (np.median(seconds) * rate)),
        'kilobits_a_second': _LATENT_BITS * config.latent_channels * rate / per_latent / 1000,
    }


def _summarise(
    clips: Sequence[Clip], figures: Sequence[Sequence[dict[str, float]]]
) -> dict[str, Any]:
    """Statistics of figures by seed and clip."""
    names = list(figures[0][0])
    values = {name: np.array([[row[name] for row in rows] for rows in figures]) for name in names}
    means = {name: np.mean(each, axis=0) for name, each in values.items()}  # [clips]
    return {
        'mean': {name: statistics.mean(each) for name, each in means.items()},
        'interval': {name: statistics.interval(each) for name, each in means.items()},
        'counted': {name: int(np.sum(np.isfinite(each))) for name, each in means.items()},
        'seed_spread': {
            name: float(np.std([statistics.mean(rows) for rows in each]))
            for name, each in values.items()
        },
        'clips': {
            clip.name: {name: float(each[number]) for name, each in means.items()}
            for number, clip in enumerate(clips)
        },
    }


def _write_listening(
    folder: pathlib.Path,
    clips: Sequence[Clip],
    sounds: Sequence[Mapping[str, np.ndarray]],
    rate: int,
    figures: Figures,
    webmushra: bool,
) -> None:
    """Writes the page, and the test for webMUSHRA if wanted, of the first clips' sounds."""
    heard = [
        Comparison(clip.name, rate, clip.waveform, made)
        for clip, made in zip(clips, sounds, strict=False)
        if len(clip.waveform) <= 2
    ]
    if len(heard) < len(sounds):
        _logger.warning(
            '%d pieces of more than two channels are not on the page', len(sounds) - len(heard)
        )
    if not heard:
        return
    title = 'Reconstructions by ' + ', '.join(sounds[0])
    if is_playable(rate):
        write_page(folder, heard, figures, title)
    else:
        _logger.warning('there is no page: browsers do not play %d Hz', rate)
    if webmushra:
        write_webmushra(folder / 'webmushra', heard, title)


def _write_csv(path: pathlib.Path, systems: Mapping[str, Any], names: Sequence[str]) -> None:
    """Writes a row for each piece and system, empty where a figure is not finite."""
    with replaced_file(path) as partial, open(partial, 'w', newline='', encoding='utf-8') as file:
        rows = csv.writer(file)
        rows.writerow(('clip', 'system', *names))
        for system, measured in systems.items():
            for clip, figures in measured['clips'].items():
                values = (figures[name] for name in names)
                rows.writerow((clip, system, *(v if np.isfinite(v) else '' for v in values)))


@contextlib.contextmanager
def _progress(total: int, unit: str, text: str):
    """Logs that work begins and shows how far it is; yields what counts one as done."""
    _logger.info('measuring %s', text)
    with contextlib.closing(ProgressBar(total, unit)) as bar:
        yield lambda: bar.advance(1, text)

"""Reports how well models reconstruct audio, beside each other and beside baselines."""

import dataclasses
import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from m2l_jax.audio.planes import to_planes
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.evaluation import metrics, noise_bins
from m2l_jax.evaluation.baselines import shaped_noise, untrained_model
from m2l_jax.evaluation.clips import Clip, cut_clips, cut_crops
from m2l_jax.evaluation.embeddings.choice import default_names, open_embeddings
from m2l_jax.evaluation.embeddings.systems import EmbeddedClips, embed_clips
from m2l_jax.evaluation.measuring.systems import Take, Trial, ignore
from m2l_jax.evaluation.measuring.workers import Workers, core_count
from m2l_jax.evaluation.reconstruction import reconstruct_channels
from m2l_jax.evaluation.reporting.files import write_files
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import new_folder
from m2l_jax.interface.progress import progress
from m2l_jax.interface.settings import check_seeds

RELEASED = 'released'
UNTRAINED, SHAPED_NOISE = 'untrained', 'shaped noise'
OF_TOKENS = ' (tokens)'  # after the name of a model that decodes tokens

_CROP_FRAMES = 64  # of the paper's training crops
_HUBER_SCALE, _DELTA = 0.00054, 1e-3  # c/√n, and the Δ at which the paper's schedule ends
_LATENT_BITS = 16  # of a number, for the bits a second

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
    untrained: int = 5,
    latent_gain: bool = True,
    processes: int | None = None,
    embeddings: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Writes `report.json`, `clips.csv`, and some pieces to listen to, into `output`.

    Args:
      checkpoint: the model, as `EncoderDecoder` takes it.
      inputs: see `clips.cut_clips`.
      output: folder; made if missing.
      against: other models to measure in the same way; `RELEASED` for the authors' weights.
      seconds: of each piece.
      media: pieces to write as WAV and PNG, and on a page, `index.html`, beside all models.
      denoising_steps: evaluations of the model in decoding.
      seed: of the decoding noise, and of the untrained model.
      seeds: decodings of each piece, from noise of `seed`, `seed` + 1, …; figures are their means.
      webmushra: write the pieces as a blind test for webMUSHRA too, into `webmushra`.
      untrained: pieces, evenly spaced, on which the model is measured untrained too; 0 for none.
      latent_gain: measure errors by noise level too.
      processes: compute the figures while this one decodes; 0 for none, and as many as cores if not
        given.
      embeddings: networks for Fréchet and kernel distances, see `open_embeddings`; if not given,
        those of `default_names`.

    Returns:
      The report. Its `systems` have, by name, what `statistics.summarise` gives and, for all but
      the untrained model, `distances` by embedding, see `measure_distances`, of the first seed; the
      tokens of a discrete model are a system beside its latents. `left_out_metrics` has a line for
      each metric whose packages are not installed.

    Raises:
      InputError: if a model or the audio cannot be read, a model gives NaN, figures cannot be
        computed, or files not written.
      Interrupted: after Ctrl-C or SIGTERM; nothing is written then.
    """
    if webmushra and not media:
        raise InputError('--webmushra writes the pieces of --media, which is 0: raise it')
    check_seeds(seed, seeds)
    codecs = _open_models(checkpoint, against)
    rate = codecs[checkpoint].sample_rate
    missing = ''
    if embeddings is None:
        embeddings, missing = default_names()
    networks = open_embeddings(embeddings, codecs[checkpoint])
    stereo = any(codec.config.audio_channels == 2 for codec in codecs.values())
    clips, left_out, skipped = cut_clips(inputs, rate, seconds, stereo)
    available, left_out_metrics = _choose_metrics(clips, missing)
    with new_folder(output) as folder:
        with Workers(core_count() if processes is None else processes) as workers:
            trial = Trial(clips, rate, range(seed, seed + seeds), list(available), workers)
            originals = embed_clips(networks, clips, rate)
            systems, sounds = _measure_models(trial, codecs, denoising_steps, originals, media)
            if latent_gain:
                for name, codec in codecs.items():
                    systems[name]['by_noise_level'] = measure_noise_levels(codec, clips)
            codec = codecs[checkpoint]
            systems |= _measure_baselines(trial, codec, denoising_steps, untrained, originals)
        report = {
            'checkpoint': checkpoint,
            'denoising_steps': denoising_steps,
            'seeds': list(trial.seeds),
            'seconds': seconds,
            'systems': systems,
            'metrics': {name: metric.heading for name, metric in available.items()},
            'embeddings': {network.name: network.label for network in networks},
            'left_out_metrics': left_out_metrics,
            'left_out': dataclasses.asdict(left_out),
            'skipped': skipped,
        }
        write_files(folder, report, clips, sounds, rate, webmushra)
    return report


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
    with progress(noise_bins.BINS, 'level', text) as advance:
        crops = cut_crops(clips, samples, codec.config.audio_channels > 1)
        crops = to_planes(crops, spectrogram, codec.config.layout)
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


def _choose_metrics(
    clips: Sequence[Clip], missing: str
) -> tuple[dict[str, metrics.Metric], dict[str, str]]:
    """The metrics to measure, and a line, logged too, for each that lacks packages.

    Args:
      clips: to measure; without stereo among them, figures of stereo go without a line.
      missing: the line for distances, '' if they lack nothing.
    """
    available, left_out = metrics.find_available(metrics.ALL_METRICS)
    if missing:
        left_out['distances'] = missing
    for reason in left_out.values():
        _logger.warning(reason)
    if all(len(clip.waveform) != 2 for clip in clips):
        available = {name: metric for name, metric in available.items() if not metric.stereo}
    return available, left_out


def _with_tokens(codecs: Mapping[str, EncoderDecoder]) -> list[tuple[str, EncoderDecoder, bool]]:
    """Name and model of each system, and True for the tokens of a discrete model."""
    systems = []
    for name, codec in codecs.items():
        systems.append((name, codec, False))
        if codec.config.is_discrete:
            systems.append((name + OF_TOKENS, codec, True))
    return systems


def _take(sounds: list[np.ndarray], count: int, embedded: EmbeddedClips) -> Take:
    """Embeds all reconstructions, and keeps the first."""

    def take(number: int, waveform: np.ndarray) -> None:
        embedded.add(waveform)
        if number < count:
            sounds.append(waveform)

    return take


def _measure_model(
    trial: Trial,
    name: str,
    codec: EncoderDecoder,
    denoising_steps: int,
    take: Take = ignore,
    tokens: bool = False,
) -> dict[str, Any]:
    """A model's part of the report; with `tokens`, that of the tokens of a discrete one."""
    config, rate = codec.config, trial.sample_rate

    def reconstruct(waveform: np.ndarray, seed: int) -> np.ndarray:
        return reconstruct_channels(codec, waveform, denoising_steps, seed, tokens)

    measured = trial.measure(name, reconstruct, take)
    bits = math.log2(config.levels) if tokens else _LATENT_BITS
    latents_a_second = rate / config.samples_per_latent * config.latent_channels
    latents_a_second /= config.audio_channels
    return {
        'model': codec.model_id,
        'config': config.record(),
        **measured.summarise(),
        'times_real_time': 1 / (measured.seconds * rate),
        'kilobits_a_second': bits * latents_a_second / 1000,
    }


def _measure_models(
    trial: Trial,
    codecs: Mapping[str, EncoderDecoder],
    denoising_steps: int,
    originals: EmbeddedClips,
    media: int,
) -> tuple[dict[str, dict[str, Any]], dict[str, list[np.ndarray]]]:
    """The parts of all models, and their first `media` reconstructions."""
    systems: dict[str, dict[str, Any]] = {}
    sounds: dict[str, list[np.ndarray]] = {}
    for name, codec, tokens in _with_tokens(codecs):
        made, sounds[name] = originals.of_another_system(), []
        take = _take(sounds[name], media, made)
        systems[name] = _measure_model(trial, name, codec, denoising_steps, take, tokens)
        systems[name]['distances'] = made.measure(originals, trial.workers)
    return systems, sounds


def _measure_baselines(
    trial: Trial,
    codec: EncoderDecoder,
    denoising_steps: int,
    pieces: int,
    originals: EmbeddedClips,
) -> dict[str, Any]:
    """The part of the report of the same model untrained, on some pieces, and of noise."""
    seed, clips = trial.seeds[0], trial.clips
    count, baselines = min(pieces, len(clips)), {}
    if count:
        spread = [clips[number * len(clips) // count] for number in range(count)]
        model, on_spread = untrained_model(codec, seed), dataclasses.replace(trial, clips=spread)
        baselines[UNTRAINED] = _measure_model(on_spread, UNTRAINED, model, denoising_steps)
    once = dataclasses.replace(trial, seeds=[seed])  # the noise has a seed of its own
    made = originals.of_another_system()
    take = _take([], 0, made)
    measured = once.measure(SHAPED_NOISE, lambda waveform, _: shaped_noise(waveform), take)
    distances = made.measure(originals, trial.workers)
    baselines[SHAPED_NOISE] = {**measured.summarise(), 'distances': distances}
    return baselines

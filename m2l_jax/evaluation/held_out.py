"""Evaluation on held-out clips during training."""

import dataclasses
import logging
import math
import pathlib
import time

import jax
import numpy as np

from m2l_jax.audio import files
from m2l_jax.audio.levels import log_once
from m2l_jax.audio.planes import describe_surplus, to_planes
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.evaluation import metrics, noise_bins
from m2l_jax.evaluation.clips import Clip, cut_crops, is_silent, read_sound
from m2l_jax.evaluation.pictures import to_pixels
from m2l_jax.evaluation.reconstruction import reconstruct
from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import Music2Latent, Params

_logger = logging.getLogger(__name__)

_SEED = 0  # of the decoding noise


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Settings of the evaluation during training.

    Attributes:
      path: folder of audio files (searched recursively), a file, a pattern or a list; several
        separated by commas; '' for no evaluation.
      every: steps between evaluations.
      clips: most files, evenly spaced through their sorted list.
      seconds: of each file, from its start.
      media_clips: clips that are also written as audio and pictures.
      denoising_steps: evaluations of the model in decoding.
    """

    path: str
    every: int
    clips: int
    seconds: float
    media_clips: int
    denoising_steps: int

    def __post_init__(self):
        least = {'every': 1, 'clips': 1, 'media_clips': 0, 'denoising_steps': 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise InputError(
                    f'config.evaluation.{name}={getattr(self, name)} must be at least {value}'
                )
        if not 0 < self.seconds < math.inf:
            raise InputError(f'config.evaluation.seconds={self.seconds} must be above 0')


@dataclasses.dataclass(frozen=True)
class ClipMedia:
    """A clip to listen to and look at.

    Attributes:
      name: of the clip, unique, the same in each evaluation.
      original, reconstruction: `[channels, samples]`, float32.
      picture: both waveforms and spectrograms, `[height, width, 3]`, uint8.
    """

    name: str
    original: np.ndarray
    reconstruction: np.ndarray
    picture: np.ndarray


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Results of one evaluation.

    Attributes:
      scalars: figures by their names in TensorBoard; see `HeldOutClips.evaluate`.
      media: some of the clips.
      sample_rate: of `media`, in Hz.
      seconds: duration of the evaluation.
    """

    scalars: dict[str, float]
    media: list[ClipMedia]
    sample_rate: int
    seconds: float

    def describe(self) -> str:
        """One line for the log with the main figures."""
        figures = {name.removeprefix('evaluation/'): value for name, value in self.scalars.items()}
        return (
            f'{metrics.describe(figures)}, loss {figures["loss"]:.4g}, latent gain '
            f'{figures["latent_gain"]:.4f} ({self.seconds:.1f} s)'
        )


class HeldOutClips:
    """Held-out clips of one length, read once, for evaluations of any parameters.

    Evaluations run on one device of one process, in the model's dtype, compiled once. The same
    parameters give the same figures.

    Args:
      config: its path is not empty.
      model: the model in training.
      crop_frames: spectrogram frames of a crop for the figures by noise level, as in training; a
        multiple of the model's time downsampling.
      huber_scale: c of the consistency loss over √n.
      delta: Δ of the consistency loss; by default the last one of the paper's schedule.

    Raises:
      InputError: if a path is missing, no file can be used, or clips would be too short.
    """

    def __init__(
        self,
        config: EvaluationConfig,
        model: Music2Latent,
        crop_frames: int,
        huber_scale: float,
        delta: float = 1e-3,
    ):
        spectrogram, stereo = model.config.spectrogram, model.config.audio_channels > 1
        samples = round(config.seconds * spectrogram.sample_rate)
        least = max(metrics.LEAST_SAMPLES, spectrogram.samples(crop_frames))
        if samples < least:
            raise InputError(
                f'config.evaluation.seconds={config.seconds} is too short: '
                f'at least {least / spectrogram.sample_rate:.3f}, a training crop'
            )
        self.clips = read_clips(config, spectrogram.sample_rate, samples, stereo)
        self._config = config
        # `evaluate` sets the parameters.
        self._codec = EncoderDecoder.from_params(model, {}, dtype=model.config.dtype)
        crops = cut_crops(self.clips, spectrogram.samples(crop_frames), stereo)
        self._crops = to_planes(crops, spectrogram, model.config.layout)
        self._measure_bins = noise_bins.make_measure(self._codec.model, huber_scale, delta)

    def evaluate(self, params: Params) -> Evaluation:
        """Reconstructs the clips, and denoises crops of them at eight noise levels.

        The scalars, named `evaluation/…`, are the means of `metrics.METRICS` over the clips, of a
        discrete model `tokens_…` too, decoded from tokens, and the figures of
        `noise_bins.name_figures`.

        Args:
          params: NumPy arrays, or JAX arrays that each device holds whole.

        Raises:
          InputError: if the model gives NaN.
        """
        jax.block_until_ready(params)  # so that the time excludes earlier steps
        begin = time.monotonic()
        params = jax.tree.map(_on_one_device, params)
        codec = self._codec.with_params(params)
        steps, figures, media = self._config.denoising_steps, [], []
        for clip in self.clips:
            result = reconstruct(codec, clip, steps, _SEED)
            figures.append(result.figures)
            if len(media) < self._config.media_clips:
                picture = to_pixels(result.draw())
                media.append(ClipMedia(clip.name, clip.waveform, result.waveform, picture))
        scalars = metrics.mean_figures(figures)
        if codec.config.is_discrete:
            rounded = [reconstruct(codec, clip, steps, _SEED, tokens=True) for clip in self.clips]
            of_tokens = metrics.mean_figures([result.figures for result in rounded])
            scalars |= {f'tokens_{name}': value for name, value in of_tokens.items()}
        scalars |= self.measure_noise_levels(params)
        return Evaluation(
            {f'evaluation/{name}': value for name, value in scalars.items()},
            media,
            codec.config.spectrogram.sample_rate,
            time.monotonic() - begin,
        )

    def measure_noise_levels(self, params: Params) -> dict[str, float]:
        """Measures the figures that need no reconstruction; names without `evaluation/`."""
        figures = self._measure_bins(params, self._crops)
        return noise_bins.name_figures(figures, self._codec.config.noise)


def read_clips(
    config: EvaluationConfig, sample_rate: int, samples: int, stereo: bool = False
) -> list[Clip]:
    """Reads the first `samples` of at most `config.clips` files, at the given rate in Hz.

    The sorted list of files is split into equal parts, one a clip. The first usable file of each
    part is taken; the reasons against those before it are logged. A `stereo` model takes files of
    one or two channels alone.

    Raises:
      InputError: if a folder is missing, or no file can be used.
    """
    paths, left_out = files.search(config.path)
    if left_out.files:
        _logger.warning('%s: %s', config.path, left_out.describe())
    clips, reasons = [], []
    for part in np.array_split(np.array(paths), min(config.clips, max(1, len(paths)))):
        for path in part:
            try:
                waveform = _read_clip(path, sample_rate, samples, stereo)
            except InputError as error:
                _logger.warning('skipping %s', error)
                reasons.append(str(error))
                continue
            clips.append(Clip(f'{len(clips)}_{pathlib.Path(path).stem}', waveform))
            break
    if not clips:
        reason = reasons[0] if reasons else left_out.describe() or 'there are no audio files'
        raise InputError(f'config.evaluation.path={config.path} has nothing to evaluate: {reason}')
    _logger.info('%d held-out clips of %.2f s', len(clips), samples / sample_rate)
    return clips


def _read_clip(path: str, sample_rate: int, samples: int, stereo: bool) -> np.ndarray:
    """Reads `[channels, samples]` of a file, or raises InputError if it cannot be measured."""
    info = files.read_info(path)
    log_once(path, info.warning)
    if stereo and (surplus := describe_surplus(info.channels)):
        raise InputError(f'{path} {surplus}')
    stored = info.samples_at(sample_rate)
    if stored < samples:
        raise InputError(
            f'{path} has {stored / sample_rate:.2f} s, less than the '
            f'{samples / sample_rate:.2f} s of config.evaluation.seconds'
        )
    waveform = read_sound(path, sample_rate, samples)
    if is_silent(waveform):
        raise InputError(
            f'{path} is silent in its first {samples / sample_rate:.2f} s (RMS below 0.001)'
        )
    return waveform


def _on_one_device(leaf: jax.Array | np.ndarray) -> jax.Array:
    """Copies a leaf to this process's first device: always the same, so that it compiles once."""
    whole = leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf
    return jax.device_put(whole, jax.local_devices()[0])

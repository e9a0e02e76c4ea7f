"""Reconstruction of audio: encodes, decodes, measures, and writes it next to its original."""

import dataclasses
import logging
import math
import os
import pathlib
import time
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from m2l_jax.audio import files
from m2l_jax.audio.planes import describe_surplus
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.evaluation import metrics
from m2l_jax.evaluation.clips import Clip, read_sound
from m2l_jax.evaluation.pictures import draw_comparison, save_picture
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import new_folder

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """A clip after encoding and decoding.

    Attributes:
      clip: the original.
      waveform: the reconstruction, `[channels, samples]`.
      sample_rate: of both, in Hz.
      figures: see `metrics.measure`.
      seconds: that encoding and decoding took, nan if not timed.
    """

    clip: Clip
    waveform: np.ndarray
    sample_rate: int
    figures: dict[str, float]
    seconds: float = math.nan

    def draw(self) -> Figure:
        """Draws both waveforms and spectrograms, with the figures in the title."""
        title = f'{self.clip.name}\n{metrics.describe(self.figures)}'
        return draw_comparison(self.clip.waveform, self.waveform, self.sample_rate, title)

    def write(self, folder: pathlib.Path, *, with_original: bool = True) -> None:
        """Writes reconstruction and original as WAV, and both as a picture."""
        name = self.clip.name
        if with_original:
            files.write(folder / f'{name}.original.wav', self.clip.waveform, self.sample_rate)
        files.write(folder / f'{name}.wav', self.waveform, self.sample_rate)
        save_picture(folder / f'{name}.png', self.draw())


def reconstruct(
    codec: EncoderDecoder,
    clip: Clip,
    denoising_steps: int = 1,
    seed: int = 0,
    chosen: Mapping[str, metrics.Metric] | None = None,
    tokens: bool = False,
) -> Reconstruction:
    """Encodes a clip, decodes it from the noise of `seed`, and measures it by the chosen metrics.

    With `tokens`, decodes a discrete model's tokens.

    Raises:
      InputError: if the model gives NaN.
    """
    rate = codec.sample_rate
    begin = time.monotonic()
    waveform = reconstruct_channels(codec, clip.waveform, denoising_steps, seed, tokens)
    seconds = time.monotonic() - begin
    figures = metrics.measure(clip.waveform, waveform, rate, chosen)
    return Reconstruction(clip, waveform, rate, figures, seconds)


def reconstruct_channels(
    codec: EncoderDecoder,
    waveform: np.ndarray,
    denoising_steps: int = 1,
    seed: int = 0,
    tokens: bool = False,
) -> np.ndarray:
    """`codec.reconstruct` of `[channels, samples]` with as many channels.

    Of mono, a stereo model's two channels are averaged.
    """
    decoded = codec.reconstruct(waveform, denoising_steps, seed, tokens)
    is_surplus = len(decoded) > len(waveform)
    return decoded.mean(axis=0, keepdims=True) if is_surplus else decoded


def reconstruct_file(
    codec: EncoderDecoder,
    audio_path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    denoising_steps: int = 1,
    seed: int = 0,
    tokens: bool = False,
) -> dict[str, float]:
    """Writes the reconstruction of a file as WAV and PNG into `output` and returns its figures.

    Args:
      codec: the model.
      audio_path: any audio file; `output` gets a `.wav` and a `.png` of its name.
      output: folder; made if missing.
      denoising_steps: evaluations of the model.
      seed: of the decoding noise.
      tokens: decode a discrete model's tokens.

    Returns:
      Those of `metrics.measure`, `seconds` taken (compilation included) and `real_time_factor`.

    Raises:
      InputError: for a file that cannot be read, is too short, silent, not finite or absurdly
        loud, or that would be overwritten.
    """
    path, rate = pathlib.Path(audio_path), codec.sample_rate
    written = pathlib.Path(output, f'{path.stem}.wav')
    if written.resolve() == path.resolve():
        raise InputError(f'{written} would be overwritten: choose another output folder')
    waveform = read_sound(audio_path, rate)
    if codec.config.audio_channels > 1 and (surplus := describe_surplus(len(waveform))):
        raise InputError(f'{audio_path} {surplus}')
    if waveform.shape[1] < metrics.LEAST_SAMPLES:
        raise InputError(
            f'{audio_path} has {waveform.shape[1]} samples, too few to measure: '
            f'{metrics.LEAST_SAMPLES} at least'
        )
    if not np.any(waveform):
        raise InputError(f'{audio_path} is silent: there is nothing to reconstruct')
    if codec.config.audio_channels > 1 and len(waveform) == 1:
        _logger.info(
            '%s is mono: this stereo model encodes it as both of its channels, and the mean of the '
            'two that it decodes is written',
            audio_path,
        )
    with new_folder(output) as folder:
        clip = Clip(path.stem, waveform)
        result = reconstruct(codec, clip, denoising_steps, seed, tokens=tokens)
        result.write(folder, with_original=False)
    factor = waveform.shape[1] / rate / result.seconds
    return {**result.figures, 'seconds': result.seconds, 'real_time_factor': factor}

"""How well a model reconstructs given audio, piece by piece."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from m2l_jax.audio import files
from m2l_jax.audio.levels import check_loudness
from m2l_jax.audio.suffixes import LeftOut
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.evaluation import metrics
from m2l_jax.evaluation.held_out import LEAST_RMS, Clip
from m2l_jax.interface.errors import InputError


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """A clip's `waveform`, `[channels, samples]`, as a model gives it back, and its `figures`."""

    clip: Clip
    waveform: np.ndarray
    figures: dict[str, float]


def cut_clips(paths: str, sample_rate: int, seconds: float) -> tuple[list[Clip], LeftOut]:
    """Cuts every file into pieces of one length; what is left over or silent is left out.

    Args:
      paths: a file or folder; several with commas between.
      sample_rate: of the clips, in Hz.
      seconds: of each.

    Returns:
      The clips, and what the folders hold of formats that are not read.

    Raises:
      InputError: if a file cannot be read or holds samples that are not finite, pieces would be too
        short to measure, or there are none.
    """
    samples = round(seconds * sample_rate)
    if samples < metrics.LEAST_SAMPLES:
        raise InputError(
            f'pieces of {seconds} s are too short to measure: '
            f'{metrics.LEAST_SAMPLES / sample_rate:.3f} at least'
        )
    found, left_out = files.search(paths)
    clips = []
    for index, path in enumerate(found):
        waveform = files.read(path, sample_rate)
        files.check_finite(waveform, path)
        check_loudness(waveform, path)
        for number in range(waveform.shape[1] // samples):
            piece = waveform[:, number * samples : (number + 1) * samples]
            if np.sqrt(np.mean(piece**2)) >= LEAST_RMS:
                # The index tells files of the same name apart.
                name = f'{index:02}_{pathlib.Path(path).stem}_{number:02}'
                clips.append(Clip(name, piece))
    if not clips:
        unread_too = f' ({left_out.describe()})' if left_out.files else ''
        raise InputError(f'{paths} has no audio of {seconds} s that is not silent{unread_too}')
    return clips, left_out


def reconstruct_clips(
    codec: EncoderDecoder, clips: Sequence[Clip], denoising_steps: int, seed: int
) -> Iterator[Reconstruction]:
    """Yields each clip encoded, decoded from the noise of `seed`, and measured.

    Raises:
      InputError: if the model gives NaN.
    """
    for clip in clips:
        waveform = codec.reconstruct(clip.waveform, denoising_steps, seed)
        yield Reconstruction(clip, waveform, metrics.measure(clip.waveform, waveform))

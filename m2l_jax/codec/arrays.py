"""What users hand over as audio or latents, as NumPy arrays of the shape that is worked on."""

import logging
import os
from typing import Any

import numpy as np

from m2l_jax.audio import files
from m2l_jax.audio.levels import levels_of
from m2l_jax.interface.errors import InputError

_logger = logging.getLogger(__name__)


def as_waveform(path_or_audio: Any, sample_rate: int) -> np.ndarray:
    """`[channels, samples]`, float32, from a file or from a NumPy, JAX or PyTorch array.

    A file of another sample rate is resampled, and a warning says so.

    Raises:
      InputError: for a file that cannot be read, another shape, integers, or NaN.
    """
    if isinstance(path_or_audio, str | os.PathLike):
        stored_rate = files.read_info(path_or_audio).sample_rate
        if stored_rate != sample_rate:
            _logger.warning(
                '%s: resampled from %d to %d Hz', path_or_audio, stored_rate, sample_rate
            )
        waveform, name = files.read(path_or_audio, sample_rate), os.fspath(path_or_audio)
    else:
        waveform, name = _as_floats(path_or_audio, 'audio', 'divide PCM by its full scale'), 'audio'
    if waveform.ndim == 1:
        waveform = waveform[None]
    if waveform.ndim != 2 or not len(waveform):
        raise InputError(
            f'audio has shape {waveform.shape}; it must be [channels, samples] or [samples]'
        )
    if not np.all(np.isfinite(waveform)):
        raise InputError(f'{name} holds NaN or infinite samples: mend it before encoding')
    if name == 'audio' and (oddity := levels_of(waveform).oddity()):  # of a file, its reader tells
        _logger.warning('audio: %s', oddity)
    return waveform


def as_latents(latents: Any, channels: int) -> np.ndarray:
    """`[rows, channels, frames]`, float32, from an array of that shape or of `[channels, frames]`.

    Raises:
      InputError: for another shape, integers, or NaN.
    """
    array = _as_floats(latents, 'latents', 'pass what `encode` returned')
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.shape[1] != channels or 0 in array.shape:
        raise InputError(
            f'latents have shape {array.shape}; they must be [audio channels, {channels}, frames] '
            f'or [{channels}, frames]'
        )
    if not np.all(np.isfinite(array)):
        raise InputError('latents hold NaN or infinite numbers')
    return array


def _as_floats(array: Any, name: str, mend: str) -> np.ndarray:
    if hasattr(array, 'detach'):  # PyTorch's, perhaps on a device, perhaps in a graph
        array = array.detach().cpu().float() if array.is_floating_point() else array.cpu()
    array = np.asarray(array)
    # bfloat16 is no sub-type of NumPy's own.
    if not np.issubdtype(array.dtype, np.floating) and array.dtype.name != 'bfloat16':
        raise InputError(f'{name} must be floating-point numbers, not {array.dtype}: {mend}')
    return array.astype(np.float32, copy=False)

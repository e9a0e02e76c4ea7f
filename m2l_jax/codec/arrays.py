"""What users hand over as audio, latents and numbers, checked and in the form that is worked on."""

import contextlib
import logging
import numbers
import operator
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
import soundfile

from m2l_jax.audio import files
from m2l_jax.audio.decoding import opened
from m2l_jax.audio.levels import levels_of
from m2l_jax.interface.devices import standard_jax
from m2l_jax.interface.errors import InputError, first_line

_logger = logging.getLogger(__name__)


@standard_jax()
def as_waveform(audio: Any, sample_rate: int) -> np.ndarray:
    """`[channels, samples]`, float32, at `sample_rate`, of all that stands for a piece of audio.

    Args:
      audio: a path; a binary file, read from where it is; `[channels, samples]` or `[samples]`,
        floating point, of NumPy, JAX, PyTorch or lists; or a pair of such an array and its rate in
        Hz, in either order. Files and pairs of another rate are resampled, and a warning says so.
      sample_rate: in Hz.

    Raises:
      InputError: for a file that cannot be read, another shape, integers, no samples, or NaN.
    """
    name = 'audio'
    if isinstance(audio, str | os.PathLike):
        name = os.fspath(audio)
        waveform = _read(audio, name, sample_rate)
    elif isinstance(audio, bytes | bytearray | memoryview):
        raise InputError('audio is bytes: pass io.BytesIO(content), or the path as a str')
    elif hasattr(audio, 'read'):
        name = _name_of(audio)
        waveform = _read_stream(audio, name, sample_rate)
    elif (pair := _as_pair(audio)) is not None:
        waveform = _at_rate(_as_rows(pair[0]), pair[1], sample_rate)
    else:
        waveform = _as_rows(audio)
    if not waveform.shape[1]:
        raise InputError(f'{name} holds no samples')
    if not np.all(np.isfinite(waveform)):
        raise InputError(f'{name} holds NaN or infinite samples: mend it before encoding')
    if name == 'audio' and (oddity := levels_of(waveform).oddity()):  # of a file, its reader tells
        _logger.warning('audio: %s', oddity)
    return waveform


@standard_jax()
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


def as_pieces(paths_or_audio: Any) -> Iterable[Any]:
    """What is several pieces, and not one.

    Raises:
      InputError: for a path, an open file, or what cannot be gone through.
    """
    is_path = isinstance(paths_or_audio, str | bytes | os.PathLike)
    is_one = is_path or hasattr(paths_or_audio, 'read')
    if is_one or not isinstance(paths_or_audio, Iterable):
        raise InputError(
            f'encode_batch takes a list of pieces, not one {type(paths_or_audio).__name__}: '
            'pass [audio], or call encode'
        )
    return paths_or_audio


def as_whole(name: str, value: Any, least: int, most: int | None = None, unit: str = '') -> int:
    """A whole number, NumPy's too, from `least` to `most`.

    Raises:
      InputError: for another type, `True` and 2.0 among them, or beyond the range.
    """
    try:
        whole = operator.index(value)
    except TypeError:
        whole = None
    if whole is None or isinstance(value, bool):
        raise InputError(f'{name}={value!r} must be a whole number')
    if most is not None and not least <= whole <= most:
        raise InputError(f'{name}={whole} must be from {least} to {most}{unit}')
    if whole < least:
        raise InputError(f'{name}={whole} must be at least {least}{unit}')
    return whole


def _read(path: str | os.PathLike[str], name: str, sample_rate: int) -> np.ndarray:
    with opened(path) as file:
        stored_rate = file.samplerate
    if stored_rate != sample_rate:
        _logger.warning('%s: resampled from %d to %d Hz', name, stored_rate, sample_rate)
    return files.read(path, sample_rate)


def _read_stream(stream: Any, name: str, sample_rate: int) -> np.ndarray:
    """Reads a binary file from where it is."""
    try:
        content = stream.read()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{name} cannot be read ({first_line(error)}): open it with mode 'rb'"
        ) from None
    if not isinstance(content, bytes):
        raise InputError(f"{name} gives no bytes: open it with mode 'rb'")
    if not content:
        raise InputError(f'{name} holds nothing from where it is: call its seek(0) first')
    with _on_disk(name) as path:
        path.write_bytes(content)
        return _read(path, name, sample_rate)


def _at_rate(waveform: np.ndarray, stored_rate: numbers.Real, sample_rate: int) -> np.ndarray:
    """`[channels, samples]` resampled, as it is when it comes from a file."""
    if stored_rate == sample_rate:
        return waveform
    if not (float(stored_rate).is_integer() and stored_rate > 0):
        raise InputError(f'audio has a sample rate of {stored_rate} Hz: pass a whole number')
    with _on_disk('audio') as path:
        _write(path, waveform, int(stored_rate))
        return _read(path, 'audio', sample_rate)


def _write(path: pathlib.Path, waveform: np.ndarray, rate: int) -> None:
    """Writes to the last bit; RF64, for a WAV ends at 4 GiB."""
    try:
        soundfile.write(path, waveform.T, rate, format='RF64', subtype='FLOAT')
    except (soundfile.LibsndfileError, OverflowError) as error:
        raise InputError(
            f'audio of {len(waveform)} channels at {rate} Hz cannot be resampled '
            f'({first_line(error)})'
        ) from None


@contextlib.contextmanager
def _on_disk(name: str) -> Iterator[pathlib.Path]:
    """A path for what has none, which messages call `name`."""
    with tempfile.TemporaryDirectory(prefix='m2l_jax-') as folder:
        path = pathlib.Path(folder, 'audio')
        try:
            yield path
        except InputError as error:
            raise InputError(str(error).replace(str(path), name)) from None


def _name_of(stream: BinaryIO) -> str:
    name = getattr(stream, 'name', None)  # a number, where a file was opened by its descriptor
    return name if isinstance(name, str) and name else 'the open file'


def _as_pair(audio: Any) -> tuple[Any, numbers.Real] | None:
    """(samples, rate), if it is a pair of these in any order."""
    if not isinstance(audio, tuple | list) or len(audio) != 2:
        return None
    are_numbers = [isinstance(item, numbers.Real) for item in audio]
    if are_numbers == [False, True]:
        return audio[0], audio[1]
    return (audio[1], audio[0]) if are_numbers == [True, False] else None


def _as_rows(audio: Any) -> np.ndarray:
    """`[channels, samples]`, float32, of such an array or of `[samples]`."""
    waveform = _as_floats(audio, 'audio', 'divide PCM by its full scale')
    if waveform.ndim == 1:
        waveform = waveform[None]
    shape = waveform.shape
    if len(shape) == 3:
        raise InputError(
            f'audio has shape {shape}; it must be [channels, samples]: pass a batch to encode_batch'
        )
    if len(shape) != 2 or not shape[0]:
        raise InputError(f'audio has shape {shape}; it must be [channels, samples] or [samples]')
    if shape[0] > shape[1] > 0:
        raise InputError(f'audio of shape {shape} looks like [samples, channels]: pass audio.T')
    return waveform


def _as_floats(array: Any, name: str, mend: str) -> np.ndarray:
    if array is None:
        raise InputError(f'{name} is None')
    if hasattr(array, 'detach'):  # PyTorch's, perhaps on a device, perhaps in a graph
        array = array.detach().cpu().float() if array.is_floating_point() else array.cpu()
    try:
        array = np.asarray(array)
    except (TypeError, ValueError) as error:  # rows of several lengths, a value traced by jax.jit
        raise InputError(f'{name} cannot be made an array: {first_line(error)}') from None
    # bfloat16 is no sub-type of NumPy's own.
    if not np.issubdtype(array.dtype, np.floating) and array.dtype.name != 'bfloat16':
        raise InputError(f'{name} must be floating-point numbers, not {array.dtype}: {mend}')
    with np.errstate(over='ignore'):  # what is too large becomes infinite, and is told
        return array.astype(np.float32, copy=False)

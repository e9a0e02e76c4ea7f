"""Audio, latents and numbers from users, checked and in the form that is worked on."""

import contextlib
import logging
import operator
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np

from m2l_jax.audio import files
from m2l_jax.audio.decoding import SAMPLE_RATES, opened
from m2l_jax.audio.levels import levels_of, log_once
from m2l_jax.interface.devices import standard_jax
from m2l_jax.interface.errors import InputError, first_line

_logger = logging.getLogger(__name__)

_LEAST_AUDIO = 1000  # samples, of what is taken for audio


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
    elif isinstance(audio, list | tuple) and audio and all(map(_is_file, audio)):
        raise InputError('audio is a list of files: pass it to encode_batch')
    elif (pair := _as_pair(audio)) is not None:
        waveform = _at_rate(_as_rows(pair[0]), pair[1], sample_rate)
    else:
        waveform = _as_rows(audio)
    if not waveform.shape[1]:
        raise InputError(f'{name} holds no samples')
    if not np.all(np.isfinite(waveform)):
        raise InputError(f'{name} holds NaN or infinite samples: repair it before encoding')
    if name == 'audio':  # of a file, its reader tells
        log_once(name, levels_of(waveform).oddity())
    return waveform


@standard_jax()
def as_latents(latents: Any, width: int, feature_width: int) -> np.ndarray:
    """`[channels, width, frames]`, float32, from an array of that shape or of `[width, frames]`.

    Raises:
      InputError: for anything else; see `as_batch`.
    """
    batch = as_batch('the array', _as_array(latents, 'latents'), width, feature_width)
    if len(batch) > 1:
        raise InputError(f'the array is a batch of {len(batch)}: decode each by itself')
    return batch[0].astype(np.float32, copy=False)


def as_batch(name: str, array: np.ndarray, width: int, feature_width: int) -> np.ndarray:
    """`[batch, channels, width, frames]` of latents with or without the first one or two axes.

    Args:
      name: of their file, for errors.
      array: of any shape and type.
      width: numbers in each latent vector.
      feature_width: numbers in each vector of features.

    Raises:
      InputError: if it is something else; it says what, as far as shape and type tell.
    """
    shape = array.shape
    if 0 in shape:
        raise InputError(f'{name} is empty: its array has shape {shape}')
    if not 2 <= array.ndim <= 4 or shape[-2] != width:
        raise InputError(
            f'{name} has shape {shape}: {_describe_misfit(shape, width, feature_width)}'
        )
    # bfloat16 is no sub-type of NumPy's own.
    if not np.issubdtype(array.dtype, np.floating) and array.dtype.name != 'bfloat16':
        raise InputError(f'{name} holds {array.dtype}: latents are floating-point numbers')
    if not np.isfinite(array).all():
        raise InputError(f'{name} holds NaN or infinity: replace or remove it')
    return array.reshape((1,) * (4 - array.ndim) + shape)  # [B, channels, width, frames]


def describe_excess(latents: np.ndarray, scale: float) -> str:
    """A line on latents that no encoder gives, or nothing; `scale` is the model's."""
    peak = float(np.abs(latents).max())
    # An encoder's latents are within ±1 / scale; models that generate latents exceed that a little.
    if peak <= 2 / scale:
        return ''
    return (
        f'holds latents of up to {peak:.3g}, and an encoder gives {1 / scale:.1f} at most: '
        'check --scale, and what made them'
    )


def as_pieces(paths_or_audio: Any) -> Iterable[Any]:
    """Several pieces, as they are; refuses a single one.

    Raises:
      InputError: for a path, an open file, or what cannot be gone through.
    """
    if _is_file(paths_or_audio) or not isinstance(paths_or_audio, Iterable):
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


def _at_rate(waveform: np.ndarray, stored_rate: float, sample_rate: int) -> np.ndarray:
    """`[channels, samples]` resampled, as it is when it comes from a file."""
    if stored_rate == sample_rate:
        return waveform
    if not (stored_rate.is_integer() and int(stored_rate) in SAMPLE_RATES):
        raise InputError(
            f'audio has a sample rate of {stored_rate:g} Hz: pass a whole number from '
            f'{SAMPLE_RATES[0]} to {SAMPLE_RATES[-1]}'
        )
    _logger.warning('audio: resampled from %d to %d Hz', stored_rate, sample_rate)
    return files.resample(waveform, int(stored_rate), sample_rate)


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


def _as_pair(audio: Any) -> tuple[Any, float] | None:
    """(samples, rate), if it is a pair of these in any order."""
    if not isinstance(audio, tuple | list) or len(audio) != 2:
        return None
    rates = [_as_number(item) for item in audio]
    if rates.count(None) != 1:
        return None
    samples, rate = (audio[1], rates[0]) if rates[1] is None else (audio[0], rates[1])
    if _is_file(samples):
        raise InputError('audio is a pair with a file: pass the file alone, which says its rate')
    return samples, rate


def _as_number(value: Any) -> float | None:
    """A number, also in an array or a tensor without axes; None for all else."""
    if isinstance(value, bool) or getattr(value, 'ndim', 0) or not hasattr(value, '__float__'):
        return None
    return float(value)


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


def _describe_misfit(shape: tuple[int, ...], width: int, feature_width: int) -> str:
    if len(shape) > 1 and feature_width in shape[-2:]:
        return 'these are features, which are not decoded: encode without --features'
    if 2 <= len(shape) <= 4 and shape[-1] == width:
        return 'frames come last in latents: save array.swapaxes(-1, -2)'
    is_thin = len(shape) == 1 or (len(shape) in (2, 3) and min(shape[-2:]) <= 2)
    if is_thin and max(shape[-2:]) >= _LEAST_AUDIO:
        return 'this looks like audio: encode it first'
    if 2 <= len(shape) <= 4:
        return (
            f'each latent vector has {shape[-2]} numbers, where the model wants {width}; '
            'pass the checkpoint that they are of'
        )
    return (
        f'latents are [{width}, frames], [channels, {width}, frames] or '
        f'[batch, channels, {width}, frames]'
    )


def _as_floats(array: Any, name: str, remedy: str) -> np.ndarray:
    array = _as_array(array, name)
    # bfloat16 is no sub-type of NumPy's own.
    if not np.issubdtype(array.dtype, np.floating) and array.dtype.name != 'bfloat16':
        raise InputError(f'{name} must be floating-point numbers, not {array.dtype}: {remedy}')
    with np.errstate(over='ignore'):  # what is too large becomes infinite, and is told
        return array.astype(np.float32, copy=False)


def _as_array(array: Any, name: str) -> np.ndarray:
    if array is None:
        raise InputError(f'{name} is None')
    if _is_file(array):
        raise InputError(f'{name} is a file where an array is wanted: read it first')
    if hasattr(array, 'is_floating_point'):  # PyTorch's, perhaps on a device, perhaps in a graph
        array = array.detach().cpu().float() if array.is_floating_point() else array.cpu()
    try:
        return np.asarray(array)
    except (TypeError, ValueError) as error:  # rows of several lengths, a value traced by jax.jit
        raise InputError(f'{name} cannot be made an array: {first_line(error)}') from None


def _is_file(value: Any) -> bool:
    return isinstance(value, str | bytes | os.PathLike) or hasattr(value, 'read')

"""Checks users' audio, latents and numbers, and converts them to arrays."""

import logging
import operator
import os
import pathlib
import tempfile
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np

from m2l_jax.audio import files
from m2l_jax.audio.decoding import SAMPLE_RATES, opened
from m2l_jax.audio.levels import levels_of, log_once
from m2l_jax.audio.planes import describe_surplus
from m2l_jax.interface.devices import standard_jax
from m2l_jax.interface.errors import InputError, first_line

_logger = logging.getLogger(__name__)

_DIVERGED = 'the model gives NaN: its training diverged, use another checkpoint'
_LEAST_AUDIO = 1000  # samples, for an array to be taken for audio


@standard_jax()
def as_waveform(audio: Any, sample_rate: int, audio_channels: int = 1) -> np.ndarray:
    """Audio of any kind that `EncoderDecoder.encode` takes: `[channels, samples]`, float32.

    Files and pairs of a rate other than `sample_rate`, in Hz, are resampled, with a warning.
    `audio_channels` share a latent sequence of the model; one takes any number one by one.

    Raises:
      InputError: for an unreadable file, another shape, integers, no samples, NaN, or more channels
        than stereo has.
    """
    name = 'audio'
    if isinstance(audio, bytes | bytearray | memoryview):
        raise InputError('audio is bytes: pass io.BytesIO(content), or the path as a str')
    if isinstance(audio, list | tuple) and audio and all(map(_is_file, audio)):
        raise InputError('audio is a list of files: pass it to encode_batch')
    if isinstance(audio, str | os.PathLike):
        name = os.fspath(audio)
        waveform = _read(audio, name, sample_rate)
    elif hasattr(audio, 'read'):
        name = getattr(audio, 'name', None)
        name = name if isinstance(name, str) and name else 'the open file'  # not a descriptor
        waveform = _read_stream(audio, name, sample_rate)
    elif (pair := _as_pair(audio)) is not None:
        waveform = _resample(_as_rows(pair[0]), pair[1], sample_rate)
    else:
        waveform = _as_rows(audio)
    if not waveform.shape[1]:
        raise InputError(f'{name} holds no samples')
    if audio_channels > 1 and (surplus := describe_surplus(len(waveform))):
        raise InputError(f'{name} {surplus}')
    if not np.all(np.isfinite(waveform)):
        raise InputError(f'{name} holds NaN or infinite samples: repair it before encoding')
    if name == 'audio':  # a file's reader has logged it
        log_once(name, levels_of(waveform).oddity())
    return waveform


@standard_jax()
def as_latents(
    latents: Any,
    width: int,
    feature_width: int,
    audio_channels: int = 1,
    name: str = 'the array',
) -> np.ndarray:
    """`[channels, width, frames]`, float32; arguments and errors as in `as_batch`."""
    array = as_array(latents, 'latents')
    batch = as_batch(name, array, width, feature_width, audio_channels)
    if len(batch) > 1:
        raise InputError(f'{name} is a batch of {len(batch)}: decode each by itself')
    return batch[0].astype(np.float32, copy=False)


def as_batch(
    name: str, array: np.ndarray, width: int, feature_width: int, audio_channels: int = 1
) -> np.ndarray:
    """`[batch, channels, width, frames]` of latents that may lack the first one or two axes.

    Latents of a stereo model have one sequence for both channels: `[batch, 1, width, frames]`.

    Args:
      name: of their file, for errors.
      array: of any shape and type.
      width, feature_width: numbers in each vector of latents and of features.
      audio_channels: that share a sequence.

    Raises:
      InputError: for anything else; it names what the array probably is.
    """
    shape = array.shape
    if 0 in shape:
        raise InputError(f'{name} is empty: its array has shape {shape}')
    if not 2 <= array.ndim <= 4 or shape[-2] != width:
        raise InputError(f'{name} has shape {shape}: {_explain_shape(shape, width, feature_width)}')
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(
            f'{name} holds {array.dtype}: latents are floating-point numbers; tokens need their '
            'levels in the file or, in Python, codec.from_tokens'
        )
    if not np.isfinite(array).all():
        raise InputError(f'{name} holds NaN or infinity: replace or remove it')
    if audio_channels > 1 and array.ndim > 2 and shape[-3] > 1:
        raise InputError(
            f'{name} has shape {shape}: {shape[-3]} sequences, and a stereo model has one for both '
            f'channels; a batch is [batch, 1, {width}, frames]'
        )
    return array.reshape((1,) * (4 - array.ndim) + shape)  # [B, channels, width, frames]


def describe_excess(latents: np.ndarray, scale: float) -> str:
    """A line on latents beyond what any encoder gives, or ''; `scale` is the model's."""
    peak = float(np.abs(latents).max())
    # An encoder's latents are within ±1 / scale; models that generate latents exceed that a little.
    if peak <= 2 / scale:
        return ''
    return (
        f'holds latents of up to {peak:.3g}, and an encoder gives {1 / scale:.1f} at most: '
        'check --scale, and what made them'
    )


def as_pieces(paths_or_audio: Any) -> list[Any]:
    """A list of several pieces; an InputError for a single path, open file or number."""
    if _is_file(paths_or_audio) or not isinstance(paths_or_audio, Iterable):
        raise InputError(
            f'encode_batch takes a list of pieces, not one {type(paths_or_audio).__name__}: '
            'pass [audio], or call encode'
        )
    return list(paths_or_audio)


def as_whole(name: str, value: Any, least: int, most: int | None = None, unit: str = '') -> int:
    """A whole number, NumPy's too, from `least` to `most`; InputError for 2.0, True and others."""
    try:
        whole = operator.index(value if not isinstance(value, bool) else None)
    except TypeError:
        raise InputError(f'{name}={value!r} must be a whole number') from None
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
    """Reads a binary file from its position."""
    try:
        content = stream.read()
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise InputError(f"{name} cannot be read ({reason}): open it with mode 'rb'") from None
    if not isinstance(content, bytes):
        raise InputError(f"{name} gives no bytes: open it with mode 'rb'")
    if not content:
        raise InputError(f'{name} holds nothing from where it is: call its seek(0) first')
    with tempfile.TemporaryDirectory(prefix='m2l_jax-') as folder:
        path = pathlib.Path(folder, 'audio')
        path.write_bytes(content)
        try:
            return _read(path, name, sample_rate)
        except InputError as error:
            raise InputError(str(error).replace(str(path), name)) from None


def _resample(waveform: np.ndarray, stored_rate: float, sample_rate: int) -> np.ndarray:
    """Resamples `[channels, samples]` as a file is."""
    if stored_rate == sample_rate:
        return waveform
    if not (stored_rate.is_integer() and int(stored_rate) in SAMPLE_RATES):
        raise InputError(
            f'audio has a sample rate of {stored_rate:g} Hz: pass a whole number from '
            f'{SAMPLE_RATES[0]} to {SAMPLE_RATES[-1]}'
        )
    _logger.warning('audio: resampled from %d to %d Hz', stored_rate, sample_rate)
    return files.resample(waveform, int(stored_rate), sample_rate)


def _as_pair(audio: Any) -> tuple[Any, float] | None:
    """(samples, rate) of a pair of these in either order; None for anything else."""
    if not isinstance(audio, tuple | list) or len(audio) != 2:
        return None
    if _is_number(audio[0]) == _is_number(audio[1]):
        return None
    samples, rate = audio[::-1] if _is_number(audio[0]) else audio
    if _is_file(samples):
        raise InputError('audio is a pair with a file: pass the file alone, which says its rate')
    return samples, float(rate)


def _is_number(value: Any) -> bool:
    """True also for an array or a tensor without axes."""
    is_scalar = not isinstance(value, bool) and not getattr(value, 'ndim', 0)
    return is_scalar and hasattr(value, '__float__')


def _as_rows(audio: Any) -> np.ndarray:
    """`[channels, samples]`, float32, of such an array or of `[samples]`."""
    array = as_array(audio, 'audio')
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(
            f'audio must be floating-point numbers, not {array.dtype}: divide PCM by its full scale'
        )
    with np.errstate(over='ignore'):  # infinity is refused later
        array = array.astype(np.float32, copy=False)
    waveform = array[None] if array.ndim == 1 else array
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


def _explain_shape(shape: tuple[int, ...], width: int, feature_width: int) -> str:
    """A guess at what an array is instead of latents, and what to do."""
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
    frames = f'{width}, frames]'
    return f'latents are [{frames}, [channels, {frames} or [batch, channels, {frames}'


def as_array(array: Any, name: str) -> np.ndarray:
    """An array of NumPy, JAX or PyTorch as NumPy's; `name` is for errors."""
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


def check_encoded(latents: np.ndarray, waveform: np.ndarray, source: Any) -> np.ndarray:
    """Refuses NaN; names as its cause audio that is too loud, else the model."""
    if not np.all(np.isfinite(latents)):
        if too_loud := levels_of(waveform).too_loud():
            name = os.fspath(source) if isinstance(source, str | os.PathLike) else 'audio'
            raise InputError(f'{name} cannot be encoded, it is {too_loud}')
        raise InputError(_DIVERGED)
    return latents


def check_decoded(
    waveform: np.ndarray, latents: np.ndarray, scale: float, name: str = 'the array'
) -> np.ndarray:
    """Refuses NaN; names as its cause latents that no encoder gives, else the model."""
    if not np.all(np.isfinite(waveform)):
        if excess := describe_excess(latents, scale):
            raise InputError(f'{name} {excess}; of these the model makes NaN')
        raise InputError(f'{name}: {_DIVERGED}')
    return waveform

"""Reads and writes files of latents, with all that decoding needs.

NumPy reads both formats without this project. It returns bfloat16 as `|V2`, to be viewed by
`array.view(ml_dtypes.bfloat16)`; the metadata's `dtype` says so.
"""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import types
from collections.abc import Iterator
from typing import Any, Literal

import ml_dtypes  # makes 'bfloat16' known to NumPy
import numpy as np

from m2l_jax.audio.decoding import SAMPLE_RATES
from m2l_jax.audio.suffixes import AUDIO_SUFFIXES
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import replaced_file

SUFFIXES = ('.npz', '.npy')

STORAGE_DTYPES = ('float32', 'float16', 'bfloat16')
TOKEN_DTYPE = 'uint8'
CHANNEL_MODES = ('each', 'mono', 'mid_side', 'joint')
KINDS = ('latents', 'features', 'tokens')

_METADATA = ('sample_rate', 'samples', 'scale', 'model')
# Missing in old files; `levels` also where there are no tokens. `dtype` is that of the array, since
# NumPy has no name for bfloat16.
_LATER_METADATA = ('channel_mode', 'chunk_offsets', 'kind', 'dtype', 'levels')
_ALL_METADATA = (*_METADATA, *_LATER_METADATA)
_LONGEST_NAME = 255  # bytes that file systems give to one
_ZIP_HEADS = (b'PK\x03\x04', b'PK\x05\x06')


@dataclasses.dataclass(frozen=True)
class StoredLatents:
    """Content of a file of latents. Fields are None if another program's file lacks them.

    Attributes:
      latents: `[channels, 64, frames]`, scaled, in one of `STORAGE_DTYPES`; or the encoder's
        features, `[channels, 8192, frames]`; or tokens, uint8, of the shape of latents.
      sample_rate: of the encoded audio, in Hz.
      samples: of a channel of that audio; further decoded samples are padding.
      scale: factor from these latents to the model's; 1 for features and tokens.
      model: id of the model, see `EncoderDecoder.model_id`.
      channel_mode: 'each' channel of the file, their 'mono' mix, or 'mid_side'; left is the sum of
        mid and side, right the difference. 'joint' for one sequence of both, by a stereo model.
      chunk_offsets: first frame of each separately encoded chunk.
      kind: 'latents'; 'features' before the bottleneck, which cannot be decoded; or 'tokens'.
      levels: values of a token, from 0 on; None if there are no tokens.
    """

    latents: np.ndarray
    sample_rate: int | None
    samples: int | None
    scale: float | None
    model: str | None
    channel_mode: Literal['each', 'mono', 'mid_side', 'joint'] = 'each'
    chunk_offsets: tuple[int, ...] = (0,)
    kind: Literal['latents', 'features', 'tokens'] = 'latents'
    levels: int | None = None


def to_storage(values: np.ndarray, dtype: str, name: str) -> np.ndarray:
    """Converts latents or features of any shape to one of `STORAGE_DTYPES`.

    Args:
      values: to convert.
      dtype: 'float32', 'float16' or 'bfloat16'.
      name: of their file, for errors.

    Raises:
      InputError: if they are not finite, or too large for `dtype`.
    """
    if not np.isfinite(values).all():
        raise InputError(f'{name} encodes to NaN or infinity: replace or remove it')
    with np.errstate(over='ignore'):
        stored = values.astype(np.dtype(dtype), copy=False)
    if not np.isfinite(stored).all():
        largest = np.abs(values).max()
        raise InputError(
            f'{name} encodes to values of up to {largest:.4g}, too large for {dtype} '
            f'({ml_dtypes.finfo(stored.dtype).max:.4g} at most): store it as float32 or bfloat16'
        )
    return stored


def mirrored_name(source: str, suffix: str) -> str:
    """Returns the name of an input's output file: the same path with another suffix."""
    return os.path.splitext(source)[0] + suffix


def check_name(path: pathlib.Path) -> None:
    """Raises an InputError if the name is too long for a file."""
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise InputError(f'{path.name} is too long for a file name: shorten that of its source')


def written_paths(path: str | os.PathLike[str]) -> tuple[pathlib.Path, ...]:
    """Returns the files that `write_latents` writes for a path, the array first."""
    path = pathlib.Path(path)
    return (path,) if path.suffix == '.npz' else (path, _record_of(path))


def write_latents(path: str | os.PathLike[str], stored: StoredLatents) -> None:
    """Writes `.npz` (arrays `latents`, `sample_rate`, …) or `.npy` with a `.npy.json` beside it.

    A file appears under its name once it is complete; of a pair, the array last. The same content
    gives the same bytes.
    """
    path = pathlib.Path(path)
    metadata = {name: getattr(stored, name) for name in _ALL_METADATA if name != 'dtype'}
    metadata['dtype'] = stored.latents.dtype.name
    if stored.levels is None:
        del metadata['levels']
    if path.suffix == '.npz':
        with replaced_file(path) as partial, open(partial, 'wb') as file:
            np.savez(file, latents=stored.latents, **metadata)
    else:
        record, text = _record_of(path), json.dumps(metadata, indent=2) + '\n'
        if not (record.exists() and record.read_bytes() == text.encode()):
            path.unlink(missing_ok=True)  # an old array must never stand beside a new record
        with replaced_file(record) as partial:
            partial.write_text(text)
        with replaced_file(path) as partial, open(partial, 'wb') as file:
            # NumPy writes to a file object in C, and misses errors at the last bytes.
            np.save(types.SimpleNamespace(write=file.write), stored.latents)


def read_latents(path: str | os.PathLike[str]) -> StoredLatents:
    """Reads a file of `write_latents`, in its own dtype; never runs code in it.

    Raises:
      InputError: if the file or its `.json` is missing, damaged or of another kind.
    """
    stored = read_any(path)
    for name in _METADATA:
        if getattr(stored, name) is None:
            raise InputError(f'{path} lacks {name!r}: it is not a file of latents')
    with _named(path):
        return check(stored)


def read_any(path: str | os.PathLike[str]) -> StoredLatents:
    """Reads latents and metadata from a file of any program; never runs code in it.

    Args:
      path: `.npy`, perhaps with a `.npy.json` beside it, or `.npz` with an array `latents`, or with
        a single one of any name.

    Returns:
      The array as it is, of any shape and type; and None for each field that the file lacks.

    Raises:
      InputError: if the file is missing, damaged or lacks such an array, or its metadata cannot be
        true.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() in AUDIO_SUFFIXES:
        raise InputError(f'{path} is audio, not latents: encode it first')
    with _named(path):
        fields = _read_arrays(path)
    record = _record_of(path)
    if path.suffix.lower() == '.npy' and record.exists():
        with _named(record):
            fields |= _read_record(record)
        path = record  # named in the errors below
    with _named(path):
        return _from_fields(fields)


def _record_of(path: pathlib.Path) -> pathlib.Path:
    """Returns `a.npy.json` for `a.npy`, a name unlikely for a user's own file."""
    return path.with_name(f'{path.name}.json')


@contextlib.contextmanager
def _named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns any error of a reader into an InputError that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f'{path} does not exist: check the path') from None
    except Exception as error:
        reason = str(error)
        if 'allow_pickle' in reason:
            reason = 'it holds Python objects, which are never loaded: save an array of floats'
        raise InputError(f'{path} is damaged or holds no latents ({reason})') from None


def _read_arrays(path: pathlib.Path) -> dict[str, Any]:
    with open(path, 'rb') as file:
        head = file.read(4)
    if head in _ZIP_HEADS:
        return _read_npz(path)
    if head == b'\x93NUM':
        return {'latents': np.load(path, allow_pickle=False)}
    raise ValueError('it is not a NumPy file: save the latents with np.save')


def _read_npz(path: pathlib.Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as content:
        members = content.zip.namelist()
        names = [member.removesuffix('.npy') for member in members if member.endswith('.npy')]
        arrays = [name for name in names if name not in _ALL_METADATA]
        if not arrays:
            raise ValueError('it is a zip without arrays: save the latents with np.save')
        if 'latents' not in arrays and len(arrays) > 1:
            raise ValueError(f'it holds {", ".join(arrays)}: call one of the arrays latents')
        fields = {name: content[name].tolist() for name in names if name in _ALL_METADATA}
        return {'latents': content['latents' if 'latents' in arrays else arrays[0]], **fields}


def _read_record(path: pathlib.Path) -> dict[str, Any]:
    fields = json.loads(path.read_text())
    if not isinstance(fields, dict):
        raise ValueError('it is no object with named fields')
    return {name: fields[name] for name in _ALL_METADATA if name in fields}


def _from_fields(fields: dict[str, Any]) -> StoredLatents:
    known = {name: fields.get(name) for name in _METADATA}
    known |= {name: fields[name] for name in _LATER_METADATA if name in fields}
    known.pop('dtype', None)
    latents = fields['latents']
    if latents.dtype == np.dtype('V2'):  # bfloat16 as NumPy stores it
        latents = latents.view(ml_dtypes.bfloat16)
    for name in ('sample_rate', 'samples', 'levels'):
        if isinstance(known.get(name), float) and known[name].is_integer():
            known[name] = int(known[name])
    if type(known['scale']) is int:
        known['scale'] = float(known['scale'])
    if 'chunk_offsets' in known:
        known['chunk_offsets'] = tuple(known['chunk_offsets'])
    if known.get('levels') is not None:
        known.setdefault('kind', 'tokens')
    stored = StoredLatents(latents, **known)
    _check_metadata(stored)
    return stored


def check(stored: StoredLatents) -> StoredLatents:
    """Returns its argument; raises a ValueError if `encode` cannot have written it."""
    latents = stored.latents
    dtypes = (TOKEN_DTYPE,) if stored.kind == 'tokens' else STORAGE_DTYPES
    if not isinstance(latents, np.ndarray) or latents.dtype not in map(np.dtype, dtypes):
        raise ValueError(f'the {stored.kind} are not {", ".join(dtypes)}')
    if latents.ndim != 3:
        raise ValueError(f'the latents have {latents.ndim} axes, not 3')
    _check_metadata(stored)
    return stored


def _check_metadata(stored: StoredLatents) -> None:
    """Raises a ValueError for a field that cannot be true; None is allowed where it is read."""
    scale, model, offsets = stored.scale, stored.model, stored.chunk_offsets
    if scale is not None and not (isinstance(scale, float) and 0 < scale < math.inf):
        raise ValueError(f'scale is {scale!r}')
    for name, most in (('sample_rate', SAMPLE_RATES[-1]), ('samples', 2**63 - 1)):
        value = getattr(stored, name)
        if value is not None and not (isinstance(value, int) and 1 <= value <= most):
            raise ValueError(f'{name} is {value!r}')
    if model is not None and not isinstance(model, str):
        raise ValueError(f'model is {model!r}')
    for name, values in (('channel_mode', CHANNEL_MODES), ('kind', KINDS)):
        if getattr(stored, name) not in values:
            raise ValueError(f'{name} is {getattr(stored, name)!r}')
    levels = stored.levels
    if (stored.kind == 'tokens') != (isinstance(levels, int) and 2 <= levels <= 256):
        raise ValueError(f'kind is {stored.kind!r} and levels is {levels!r}')
    whole = all(isinstance(offset, int) for offset in offsets)
    if not whole or offsets[:1] != (0,) or list(offsets) != sorted(set(offsets)):
        raise ValueError(f'chunk_offsets are {offsets!r}')

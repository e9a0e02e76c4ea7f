"""Latents of an audio file on disk, with all that is needed to decode them.

NumPy reads both formats without this project. It has no bfloat16 of its own and gives back such an
array as `|V2`, for `array.view(ml_dtypes.bfloat16)`; the metadata's `dtype` says so.
"""

import dataclasses
import json
import os
import pathlib
import types
from typing import Any, Literal

import ml_dtypes  # after which NumPy knows 'bfloat16' by name
import numpy as np

from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import replaced_file

SUFFIXES = ('.npz', '.npy')

STORAGE_DTYPES = ('float32', 'float16', 'bfloat16')
CHANNEL_MODES = ('each', 'mono', 'mid_side')
KINDS = ('latents', 'features')

_METADATA = ('sample_rate', 'samples', 'scale', 'model')
# Files written before have none of these; `dtype` tells of the array what NumPy does not.
_LATER_METADATA = ('channel_mode', 'chunk_offsets', 'kind', 'dtype')


@dataclasses.dataclass(frozen=True)
class StoredLatents:
    """What is stored of one audio file.

    Attributes:
      latents: `[channels, 64, frames]`, scaled, in one of `STORAGE_DTYPES`; or the encoder's
        features, `[channels, 8192, frames]`.
      sample_rate: of the audio that was encoded, in Hz.
      samples: of that audio, a channel; what is decoded beyond them is padding.
      scale: the model's latents are these times `scale`.
      model: the model's id, see `EncoderDecoder.model_id`.
      channel_mode: what the channels are: 'each' of the file, their 'mono' mix, or 'mid_side', of
        which left is the sum and right the difference.
      chunk_offsets: the frame at which each separately encoded chunk begins.
      kind: 'latents', or 'features' for those before the bottleneck, which cannot be decoded.
    """

    latents: np.ndarray
    sample_rate: int
    samples: int
    scale: float
    model: str
    channel_mode: Literal['each', 'mono', 'mid_side'] = 'each'
    chunk_offsets: tuple[int, ...] = (0,)
    kind: Literal['latents', 'features'] = 'latents'


def to_storage(values: np.ndarray, dtype: str, name: str) -> np.ndarray:
    """Converts latents or features of any shape to one of `STORAGE_DTYPES`.

    Args:
      values: to convert.
      dtype: 'float32', 'float16' or 'bfloat16'.
      name: of the file that they are of, for errors.

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


def written_paths(path: str | os.PathLike[str]) -> tuple[pathlib.Path, ...]:
    """The files that `write_latents` makes of one path, the array first."""
    path = pathlib.Path(path)
    return (path,) if path.suffix == '.npz' else (path, _record_of(path))


def write_latents(path: str | os.PathLike[str], stored: StoredLatents) -> None:
    """Writes `.npz` (arrays `latents`, `sample_rate`, …) or `.npy` with a `.npy.json` beside it.

    A file appears under its name only once it is complete; of a pair, the array last. The same
    content gives the same bytes.
    """
    path = pathlib.Path(path)
    metadata = {
        name: getattr(stored, name) for name in (*_METADATA, *_LATER_METADATA) if name != 'dtype'
    }
    metadata['dtype'] = stored.latents.dtype.name
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
            # NumPy hands a file to C, which does not tell whether its last bytes were written.
            np.save(types.SimpleNamespace(write=file.write), stored.latents)


def read_latents(path: str | os.PathLike[str]) -> StoredLatents:
    """Reads what `write_latents` wrote, in the dtype that it has there; runs nothing in a file.

    Raises:
      InputError: if the file is missing, damaged or of another kind, or its `.json` is.
    """
    path = pathlib.Path(path)
    try:
        if path.suffix.lower() == '.npz':
            fields = _read_npz(path)
        elif path.suffix.lower() == '.npy':
            fields = {'latents': np.load(path, allow_pickle=False)}
            path = _record_of(path)
            fields |= json.loads(path.read_text())
        else:
            raise InputError(f'{path} holds no latents: use one of {", ".join(SUFFIXES)}')
        return _check(fields)
    except FileNotFoundError:
        raise InputError(f'{path} does not exist: check the path') from None
    except KeyError as error:
        reason = str(error.args[0]).split(' is not a file')[0].strip("'")
        raise InputError(f'{path} lacks {reason!r}: it is not a file of latents') from None
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file makes of its reader
        raise InputError(f'{path} is damaged or holds no latents ({error})') from None


def _record_of(path: pathlib.Path) -> pathlib.Path:
    """`a.npy.json`, which is no name that a user's own file beside `a.npy` would have."""
    return path.with_name(f'{path.name}.json')


def _read_npz(path: pathlib.Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as content:
        fields: dict[str, Any] = {'latents': content['latents']}
        fields |= {name: content[name].tolist() for name in _METADATA}
        fields |= {name: content[name].tolist() for name in _LATER_METADATA if name in content}
    return fields


def _check(fields: dict[str, Any]) -> StoredLatents:
    known = {name: fields[name] for name in ('latents', *_METADATA)}
    known |= {name: fields[name] for name in _LATER_METADATA if name in fields}
    if known.pop('dtype', None) == 'bfloat16' and known['latents'].dtype == np.dtype('V2'):
        known['latents'] = known['latents'].view(ml_dtypes.bfloat16)
    if 'chunk_offsets' in known:
        known['chunk_offsets'] = tuple(known['chunk_offsets'])
    return check(StoredLatents(**known))


def check(stored: StoredLatents) -> StoredLatents:
    """Gives back what it is given; raises a ValueError if its fields cannot be true."""
    latents, scale, offsets = stored.latents, stored.scale, stored.chunk_offsets
    if not isinstance(latents, np.ndarray) or latents.dtype not in map(np.dtype, STORAGE_DTYPES):
        raise ValueError(f'the latents are not {", ".join(STORAGE_DTYPES)}')
    if latents.ndim != 3:
        raise ValueError(f'the latents have {latents.ndim} axes, not 3')
    if not isinstance(scale, float) or not scale > 0:
        raise ValueError(f'scale is {scale!r}')
    for name in ('sample_rate', 'samples'):
        if not isinstance(getattr(stored, name), int) or getattr(stored, name) < 1:
            raise ValueError(f'{name} is {getattr(stored, name)!r}')
    for name, values in (('channel_mode', CHANNEL_MODES), ('kind', KINDS)):
        if getattr(stored, name) not in values:
            raise ValueError(f'{name} is {getattr(stored, name)!r}')
    whole = all(isinstance(offset, int) for offset in offsets)
    if not whole or offsets[:1] != (0,) or list(offsets) != sorted(set(offsets)):
        raise ValueError(f'chunk_offsets are {offsets!r}')
    return stored

"""Latents of an audio file on disk, with all that is needed to decode them."""

import dataclasses
import json
import os
import pathlib
from typing import Any

import numpy as np

from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import replaced_file

SUFFIXES = ('.npz', '.npy')

_METADATA = ('sample_rate', 'samples', 'scale', 'model')


@dataclasses.dataclass(frozen=True)
class StoredLatents:
    """What is stored of one audio file.

    Attributes:
      latents: `[channels, 64, frames]`, scaled.
      sample_rate: of the audio that was encoded, in Hz.
      samples: of that audio, a channel; what is decoded beyond them is padding.
      scale: the model's latents are these times `scale`.
      model: the model's id, see `EncoderDecoder.model_id`.
    """

    latents: np.ndarray
    sample_rate: int
    samples: int
    scale: float
    model: str


def write_latents(path: str | os.PathLike[str], stored: StoredLatents) -> None:
    """Writes `.npz` (arrays `latents`, `sample_rate`, …) or `.npy` with a `.npy.json` beside it.

    A file appears under its name only once it is complete; of a pair, the array last.
    """
    path = pathlib.Path(path)
    metadata = {name: getattr(stored, name) for name in _METADATA}
    if path.suffix == '.npz':
        with replaced_file(path) as partial, open(partial, 'wb') as file:
            np.savez(file, latents=stored.latents, **metadata)
    else:
        path.unlink(missing_ok=True)  # an old array must never stand beside a new record
        with replaced_file(_record_of(path)) as partial:
            partial.write_text(json.dumps(metadata, indent=2) + '\n')
        with replaced_file(path) as partial, open(partial, 'wb') as file:
            np.save(file, stored.latents)


def read_latents(path: str | os.PathLike[str]) -> StoredLatents:
    """Reads what `write_latents` wrote; runs nothing that a file may hold.

    Raises:
      InputError: if the file is missing, damaged or of another kind, or its `.json` is.
    """
    path = pathlib.Path(path)
    try:
        if path.suffix.lower() == '.npz':
            with np.load(path, allow_pickle=False) as content:
                fields: dict[str, Any] = {'latents': content['latents']}
                fields |= {name: content[name].item() for name in _METADATA}
        elif path.suffix.lower() == '.npy':
            fields = {'latents': np.load(path, allow_pickle=False)}
            path = _record_of(path)
            fields |= json.loads(path.read_text())
        else:
            raise InputError(f'{path} holds no latents: use one of {", ".join(SUFFIXES)}')
        return _check({name: fields[name] for name in ('latents', *_METADATA)})
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


def _check(fields: dict[str, Any]) -> StoredLatents:
    latents, scale = fields['latents'], fields['scale']
    if not isinstance(latents, np.ndarray) or not np.issubdtype(latents.dtype, np.floating):
        raise ValueError('the latents are not floating-point numbers')
    if not isinstance(scale, float) or not scale > 0:
        raise ValueError(f'scale is {scale!r}')
    for name in ('sample_rate', 'samples'):
        if not isinstance(fields[name], int) or fields[name] < 1:
            raise ValueError(f'{name} is {fields[name]!r}')
    return StoredLatents(**fields)

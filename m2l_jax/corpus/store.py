"""Latents of an audio file on disk, with all that is needed to decode them."""

import dataclasses
import json
import os
import pathlib
import zipfile
from typing import Any

import numpy as np

from m2l_jax.interface.errors import InputError

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
    """Writes `.npz` (arrays `latents`, `sample_rate`, …) or `.npy` with a `.json` beside it.

    A file appears under its name only once it is complete; of a pair, the `.json` first.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {name: getattr(stored, name) for name in _METADATA}
    if path.suffix == '.npz':
        _write(path, lambda file: np.savez(file, latents=stored.latents, **metadata))
    else:
        text = json.dumps(metadata, indent=2) + '\n'
        _write(path.with_suffix('.json'), lambda file: file.write(text.encode()))
        _write(path, lambda file: np.save(file, stored.latents))


def read_latents(path: str | os.PathLike[str]) -> StoredLatents:
    """Reads what `write_latents` wrote; runs nothing that a file may hold.

    Raises:
      InputError: if the file is missing, damaged or of another kind, or its `.json` is.
    """
    path = pathlib.Path(path)
    try:
        if path.suffix == '.npz':
            with np.load(path, allow_pickle=False) as content:
                fields: dict[str, Any] = {'latents': content['latents']}
                fields |= {name: content[name].item() for name in _METADATA}
        elif path.suffix == '.npy':
            fields = {'latents': np.load(path, allow_pickle=False)}
            path = path.with_suffix('.json')
            fields |= json.loads(path.read_text())
        else:
            raise InputError(f'{path} holds no latents: use one of {", ".join(SUFFIXES)}')
        return StoredLatents(**{name: fields[name] for name in ('latents', *_METADATA)})
    except FileNotFoundError:
        raise InputError(f'{path} does not exist: check the path') from None
    except KeyError as error:
        reason = str(error.args[0]).split(' is not a file')[0].strip("'")
        raise InputError(f'{path} lacks {reason!r}: it is not a file of latents') from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, TypeError) as error:
        raise InputError(f'{path} is damaged or holds no latents ({error})') from None


def _write(path: pathlib.Path, write: Any) -> None:
    partial = path.with_name(f'.{path.name}.partial')
    try:
        with open(partial, 'wb') as file:
            write(file)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)

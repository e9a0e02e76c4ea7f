"""Loads models from a run, a file or a name."""

import logging
import os
import pathlib

from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import Music2Latent, Params
from m2l_jax.torch_weights import files
from m2l_jax.torch_weights.conversion import load_torch_model
from m2l_jax.torch_weights.released import fetch_released

PACKAGED = ('small',)  # models that come with this package

_FOLDER = pathlib.Path(__file__).parents[1] / 'assets'

_logger = logging.getLogger(__name__)


def open_weights(
    checkpoint: str | os.PathLike[str] | None, attention_heads: int | None = None
) -> tuple[Music2Latent, Params]:
    """Loads a model and its parameters.

    Args:
      checkpoint: see `locate_weights`.
      attention_heads: see `load_torch_model`.

    Raises:
      InputError: if there is no such model, or the released one cannot be fetched.
    """
    path = locate_weights(checkpoint)
    if path.is_file() or path.suffix in files.SUFFIXES:
        return load_torch_model(path, attention_heads)
    from m2l_jax.checkpoint.store import load_model  # Orbax is slow to import

    return load_model(path)


def locate_weights(checkpoint: str | os.PathLike[str] | None) -> pathlib.Path:
    """Finds the path of a model, which need not exist.

    Args:
      checkpoint: a training run's folder, a converted folder, a `.pt` or a `.safetensors` file; a
        name in `PACKAGED`; None for the released weights, which are fetched once (CC BY-NC 4.0).

    Raises:
      InputError: if `checkpoint` is no path, the package comes without that model, or the
        released one cannot be fetched.
    """
    if checkpoint is None:
        return fetch_released()
    if not isinstance(checkpoint, str | os.PathLike):
        raise InputError(f'checkpoint={checkpoint!r} must be a path or a name')
    if not is_packaged(checkpoint):
        return pathlib.Path(checkpoint)
    path = packaged_path(checkpoint)
    if not path.is_file():
        raise InputError(
            f'this version of m2l_jax comes without the model {checkpoint!r}: pass the folder of a '
            f'training run, or a .pt or .safetensors file; ./{checkpoint} for a folder of that name'
        )
    if os.path.exists(checkpoint):
        _logger.warning(
            '%s is the model that comes with m2l_jax: ./%s for that here', checkpoint, checkpoint
        )
    return path


def is_packaged(checkpoint: str | os.PathLike[str] | None) -> bool:
    """True for the bare name of a packaged model; `./small` and `Path('small')` are paths."""
    return isinstance(checkpoint, str) and checkpoint in PACKAGED


def packaged_path(name: str) -> pathlib.Path:
    """The file of a packaged model, which may be missing."""
    return _FOLDER / f'{name}.safetensors'

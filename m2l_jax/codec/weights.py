"""Models from a run, a file or a name."""

import os
import pathlib

from m2l_jax.codec.packaged import find_packaged, is_packaged
from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import Music2Latent, Params
from m2l_jax.torch_weights import files
from m2l_jax.torch_weights.conversion import load_torch_model
from m2l_jax.torch_weights.released import fetch_released


def open_weights(
    checkpoint: str | os.PathLike[str] | None, attention_heads: int | None = None
) -> tuple[Music2Latent, Params]:
    """The model in a folder or file, one that comes with the package, or the authors' released one.

    Args:
      checkpoint: see `locate_weights`.
      attention_heads: see `load_torch_model`.

    Raises:
      InputError: if there is no such model, or the released one cannot be fetched.
    """
    path = locate_weights(checkpoint)
    if path.is_file() or path.suffix in files.SUFFIXES:
        return load_torch_model(path, attention_heads)
    from m2l_jax.checkpoint.store import load_model  # Orbax, which takes a while to import

    return load_model(path)


def locate_weights(checkpoint: str | os.PathLike[str] | None) -> pathlib.Path:
    """Where a model is kept, which need not be there.

    Args:
      checkpoint: a training run's folder, a converted folder, a `.pt` or a `.safetensors` file; a
        name in `packaged.NAMES` for a model that comes with the package; None for the released
        weights, which are fetched once (CC BY-NC 4.0).

    Raises:
      InputError: if `checkpoint` is no path, the package comes without that model, or the
        released one cannot be fetched.
    """
    if checkpoint is None:
        return fetch_released()
    if not isinstance(checkpoint, str | os.PathLike):
        raise InputError(f'checkpoint={checkpoint!r} must be a path or a name')
    return find_packaged(checkpoint) if is_packaged(checkpoint) else pathlib.Path(checkpoint)

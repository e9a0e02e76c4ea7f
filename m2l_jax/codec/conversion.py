"""Conversion of a model between this project's checkpoints and PyTorch's files."""

import os
import pathlib

import jax

from m2l_jax.codec.weights import open_weights
from m2l_jax.interface.errors import InputError
from m2l_jax.torch_weights.conversion import save_torch_model
from m2l_jax.torch_weights.files import SUFFIXES

# Taken for a mistake, and not for the name of a folder.
_OTHER_SUFFIXES = ('.pth', '.bin', '.ckpt', '.h5', '.msgpack', '.npz', '.onnx')


def convert(
    source: str,
    target: str | os.PathLike[str],
    *,
    attention_heads: int | None = None,
    storage: str = 'float32',
    most_bytes: int | None = None,
) -> int:
    """Writes a model as a checkpoint, or as a .pt or .safetensors file, by the target's suffix.

    Args:
      source: as `open_weights` takes it.
      target: a folder or file that is not there.
      attention_heads: see `load_torch_model`.
      storage, most_bytes: of a file; see `save_torch_model`.

    Returns:
      The number of parameters.

    Raises:
      InputError: before anything is read, for a target that cannot be written; or if there is no
        such model.
    """
    target, kinds = pathlib.Path(target), f'{" or ".join(SUFFIXES)} files'
    if target.exists() and (target.is_file() or target.suffix in SUFFIXES):
        raise InputError(f'{target} exists already: remove it or choose another name')
    if target.suffix in _OTHER_SUFFIXES:
        raise InputError(f'{target}: weights are written to {kinds}')
    is_file = target.suffix in SUFFIXES
    if not is_file and (storage != 'float32' or most_bytes is not None):
        raise InputError(f'{target}: --storage and --most_megabytes are for {kinds}')
    model, params = open_weights(source, attention_heads)
    if is_file:
        save_torch_model(target, model.config, params, storage=storage, most_bytes=most_bytes)
    else:
        from m2l_jax.checkpoint.store import save_model  # Orbax is slow to import

        save_model(target, model.config, params)
    return sum(leaf.size for leaf in jax.tree.leaves(params))

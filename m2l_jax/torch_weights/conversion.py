"""A whole model from a file of PyTorch tensors, and into one."""

import dataclasses
import os

from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import Music2Latent, Params
from m2l_jax.model.config import ModelConfig
from m2l_jax.torch_weights import files
from m2l_jax.torch_weights.halving import to_float16
from m2l_jax.torch_weights.sizes import infer_config
from m2l_jax.torch_weights.state_dict import (
    StateDict,
    check_tensors,
    from_state_dict,
    to_state_dict,
)


def load_torch_model(
    path: str | os.PathLike[str], attention_heads: int | None = None
) -> tuple[Music2Latent, Params]:
    """Reads a `.pt` or `.safetensors` file; sizes come from its own record or from its shapes.

    Args:
      path: the file.
      attention_heads: for a file without that record, whose shapes do not tell it; 4 if None.

    Returns:
      The model, computing in float32, and its parameters as NumPy arrays.

    Raises:
      InputError: if the file is unsafe or broken, or is not of a Music2Latent model.
    """
    config, tensors = read_torch_model(path, attention_heads)
    return Music2Latent(config), from_state_dict(tensors, config)


def read_torch_model(
    path: str | os.PathLike[str], attention_heads: int | None = None
) -> tuple[ModelConfig, StateDict]:
    """As `load_torch_model`, but leaves the tensors as the file names and lays them out."""
    tensors, config = files.read_tensors(path)
    try:
        if config is None:
            shapes = {name: tensor.shape for name, tensor in tensors.items()}
            config = infer_config(shapes, attention_heads or 4)
        elif attention_heads not in (None, config.attention_heads):
            raise InputError(f'the model has {config.attention_heads} attention heads')
        check_tensors(tensors, config)
    except InputError as error:
        raise InputError(f'{path}: {error}') from None
    return config, tensors


def save_torch_model(
    path: str | os.PathLike[str],
    config: ModelConfig,
    params: Params,
    *,
    storage: str = 'float32',
    most_bytes: int | None = None,
) -> None:
    """Writes a `.pt` file that the PyTorch package loads, or the same as `.safetensors`.

    Args:
      path: the file.
      config: the model's sizes.
      params: its parameters.
      storage: of the numbers in the file, 'float32' or 'float16'.
      most_bytes: that the file may have; None for no limit.

    Raises:
      InputError: for another suffix, sizes that the package cannot build, numbers that float16
        cannot hold, or a file that would be too large.
    """
    config = dataclasses.replace(config, dtype='float32', param_dtype='float32')
    tensors = to_state_dict(params, config)
    if storage == 'float16':
        tensors = to_float16(tensors, 'keep float32')
    files.write_tensors(path, tensors, config, most_bytes)

"""Loads whole models from files of PyTorch tensors, and saves them."""

import dataclasses
import logging
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import Music2Latent, Params
from m2l_jax.model.config import ModelConfig
from m2l_jax.torch_weights import files
from m2l_jax.torch_weights.sizes import infer_config
from m2l_jax.torch_weights.state_dict import (
    StateDict,
    check_tensors,
    from_state_dict,
    to_state_dict,
)

# In float16's range, from 6.1e-5, numbers change by 4.9e-4 of themselves at most.
_MOST_ROUNDING = 1e-3

_logger = logging.getLogger(__name__)


def load_torch_model(
    path: str | os.PathLike[str], attention_heads: int | None = None
) -> tuple[Music2Latent, Params]:
    """Loads a `.pt` or `.safetensors` file; sizes come from its own record or from its shapes.

    A file without that record doesn't show `attention_heads`, 4 if None. The model computes in
    float32; its parameters are NumPy arrays.

    Raises:
      InputError: if the file is unsafe or broken, or is not of a Music2Latent model.
    """
    config, tensors = read_torch_model(path, attention_heads)
    return Music2Latent(config), from_state_dict(tensors, config)


def read_torch_model(
    path: str | os.PathLike[str], attention_heads: int | None = None
) -> tuple[ModelConfig, StateDict]:
    """Like `load_torch_model`, but leaves the tensors as the file names and lays them out."""
    tensors, config = files.read_tensors(path)
    return complete_config(path, tensors, config, attention_heads), tensors


def complete_config(
    path: str | os.PathLike[str],
    tensors: StateDict,
    config: ModelConfig | None,
    attention_heads: int | None,
) -> ModelConfig:
    """The config of a file's tensors, inferred unless the file has one; both must agree."""
    try:
        if config is None:
            shapes = {name: tensor.shape for name, tensor in tensors.items()}
            config = infer_config(shapes, attention_heads or 4)
            if config.audio_channels > 1:
                _logger.warning('%s: its four planes are taken for left and right', path)
        elif attention_heads not in (None, config.attention_heads):
            raise InputError(f'the model has {config.attention_heads} attention heads')
        check_tensors(tensors, config)
    except InputError as error:
        raise InputError(f'{path}: {error}') from None
    return config


def save_torch_model(
    path: str | os.PathLike[str],
    config: ModelConfig,
    params: Params,
    *,
    storage: str = 'float32',
    most_bytes: int | None = None,
) -> None:
    """Saves a `.pt` file that the PyTorch package loads, or the same as `.safetensors`.

    Args:
      path: the file.
      config, params: the model.
      storage: of the numbers in the file, 'float32' or 'float16'.
      most_bytes: size limit of the file; None for none.

    Raises:
      InputError: for another suffix, sizes that the package cannot build, numbers that float16
        cannot hold, or a file that would be too large.
    """
    config = dataclasses.replace(config, dtype='float32', param_dtype='float32')
    tensors = to_state_dict(params, config)
    kinds = {'stereo': config.audio_channels > 1, 'discrete': config.is_discrete}
    for kind, is_one in kinds.items():
        if is_one and pathlib.Path(path).suffix == '.pt':
            line = '%s: the PyTorch package loads the tensors, and has no %s models'
            _logger.warning(line, path, kind)
    if storage == 'float16':
        tensors = to_float16(tensors, 'keep float32')
    files.write_tensors(path, tensors, config, most_bytes)


def to_float16(tensors: Mapping[str, np.ndarray], remedy: str) -> StateDict:
    """Rounds tensors, and logs by how much.

    Raises:
      InputError: for a number that is not finite or beyond float16's 65,504, or numbers so small
        that rounding changes them by more than a thousandth of their norm; it ends in `remedy`.
    """
    with np.errstate(over='ignore'):
        halved = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    error = norm = largest = 0.0
    for name, tensor in tensors.items():
        if not np.all(np.isfinite(tensor)):
            raise InputError(f'{name} holds numbers that are not finite: its training diverged')
        if not np.all(np.isfinite(halved[name])):
            raise InputError(
                f'{name} holds {np.abs(tensor).max():.3g}, which float16 cannot: {remedy}'
            )
        changes = np.abs(halved[name] - tensor.astype(np.float64))
        error += np.sum(changes**2)
        norm += np.sum(tensor.astype(np.float64) ** 2)
        largest = max(largest, changes.max(initial=0))
    relative = np.sqrt(error / norm) if norm else 0.0
    if relative > _MOST_ROUNDING:
        raise InputError(
            f'the numbers are too small for float16, which moves them by {relative:.1e} of their '
            f'norm: {remedy}'
        )
    message = 'rounded to float16: by %.1e of the norm of all numbers, each by %.1e at most'
    _logger.info(message, relative, largest)
    return halved

"""Reads and writes `.pt` and `.safetensors` files, without running what is in them."""

import json
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from m2l_jax.interface.errors import InputError, first_line
from m2l_jax.interface.paths import replaced_file
from m2l_jax.interface.settings import build
from m2l_jax.model.config import ModelConfig
from m2l_jax.torch_weights import trainer
from m2l_jax.torch_weights.pickles import import_torch, load_pickle, to_float32
from m2l_jax.torch_weights.state_dict import StateDict

PathLike = str | os.PathLike[str]

SUFFIXES = ('.pt', '.safetensors')

# Key of this project's record of sizes.
_CONFIG = 'm2l_jax_model_config'

_logger = logging.getLogger(__name__)


def read_tensors(path: PathLike) -> tuple[StateDict, ModelConfig | None]:
    """Reads the tensors of a file, as float32, and its config if this project wrote the file.

    Of a checkpoint of the PyTorch trainer these are the parameters, as the package takes them, not
    their average. A `.pt` file is a pickle, which may hold any program: PyTorch's restricted reader
    runs nothing.

    Raises:
      InputError: if the file is missing, broken, of another kind, or wants to run code.
    """
    path = check_file(path)
    if path.suffix == '.safetensors':
        return _complete(*_read_safetensors(path), path)
    if path.suffix == '.pt':
        content = load_pickle(path)
        if trainer.has_average(content):
            _logger.info(
                '%s is of a training run: its parameters are taken, as by the PyTorch package; '
                'their average is taken where the file is converted to a folder first',
                path,
            )
        return tensors_in(content, path)
    raise InputError(f'{path} is no file of weights: use one of {", ".join(SUFFIXES)}')


def check_file(path: PathLike) -> pathlib.Path:
    """The path of a file, or an InputError."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(f'{path} does not exist or is not a file: check the path')
    return path


def write_tensors(
    path: PathLike,
    tensors: Mapping[str, np.ndarray],
    config: ModelConfig,
    most_bytes: int | None = None,
    beside: Mapping[str, Any] | None = None,
) -> None:
    """Writes a file that the package loads (`.pt`, with `strict=True`) or anyone (`.safetensors`).

    The file appears under its name only once it is complete. `beside` is what else a `.pt` file
    holds.

    Raises:
      InputError: for another suffix, a file of more than `most_bytes`, or one that cannot be
        written.
    """
    path = pathlib.Path(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f'{path}: weights are written to {" or ".join(SUFFIXES)} files')
    from safetensors import SafetensorError
    from safetensors.numpy import save

    text = json.dumps(config.record())
    torch = import_torch(path) if path.suffix == '.pt' else None
    with replaced_file(path) as partial:
        try:
            if torch is None:
                # `save_file` would hide the file from other users.
                partial.write_bytes(save(dict(tensors), metadata={_CONFIG: text}))
            else:
                state = {name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}
                torch.save({trainer.TENSORS: state, **(beside or {}), _CONFIG: text}, partial)
        except (OSError, SafetensorError, RuntimeError) as error:  # of a full disk
            raise InputError(
                f'{path} cannot be written: the disk may be full ({first_line(error)})'
            ) from None
        size = partial.stat().st_size
        if most_bytes is not None and size > most_bytes:
            raise InputError(
                f'{path} would have {size / 1e6:.1f} MB, more than {most_bytes / 1e6:g}: store a '
                'smaller model, or float16'
            )


def _read_safetensors(path: pathlib.Path) -> tuple[StateDict, str | None]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='numpy') as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, (file.metadata() or {}).get(_CONFIG)
    except (SafetensorError, OSError) as error:
        raise InputError(f'{path} is damaged ({error}): copy or download it again') from None


def tensors_in(content: Any, path: PathLike) -> tuple[StateDict, ModelConfig | None]:
    """Tensors and config of a pickle's content, as of `read_tensors`; `path` is for errors."""
    import torch

    state = content.get(trainer.TENSORS, content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and torch.is_tensor(tensor) and tensor.layout == torch.strided
        for name, tensor in state.items()
    ):
        raise InputError(f'{path} holds no state dict, by itself or as {trainer.TENSORS!r}')
    return _complete(state, content.get(_CONFIG), path)


def _complete(
    state: Mapping[str, Any], config: Any, path: PathLike
) -> tuple[StateDict, ModelConfig | None]:
    tensors = {name: to_float32(tensor, f'{path}: {name}') for name, tensor in state.items()}
    return tensors, None if config is None else _parse_config(config, path)


def _parse_config(text: Any, path: PathLike) -> ModelConfig:
    try:
        fields = json.loads(text)
        if isinstance(fields, dict):
            return build(ModelConfig, fields, f'{path}: model')
    except InputError:
        raise
    except (TypeError, ValueError, OverflowError, RecursionError):  # numbers or depth without end
        pass
    raise InputError(f'{path} has a damaged record of its sizes ({_CONFIG}): convert it again')

"""Files of PyTorch tensors, `.pt` and `.safetensors`, read without running what is in them."""

import contextlib
import dataclasses
import json
import os
import pathlib
import pickle
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from m2l_jax.interface.errors import InputError
from m2l_jax.interface.settings import build
from m2l_jax.model.config import ModelConfig
from m2l_jax.torch_weights.state_dict import StateDict

PathLike = str | os.PathLike[str]

SUFFIXES = ('.pt', '.safetensors')

# Where the package's checkpoints keep the tensors, and where ours say which sizes they have.
_TENSORS = 'gen_state_dict'
_CONFIG = 'm2l_jax_model_config'


def read_tensors(path: PathLike) -> tuple[StateDict, ModelConfig | None]:
    """Reads the tensors of a file, as float32, and its config if this project wrote the file.

    A `.pt` file is a pickle, which may hold any program. It is read by PyTorch's restricted reader,
    which knows tensors, containers and numbers, and runs nothing.

    Raises:
      InputError: if the file is missing, broken, of another kind, or wants to run code.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(f'{path} does not exist or is not a file: check the path')
    if path.suffix == '.safetensors':
        tensors, config = _read_safetensors(path)
    elif path.suffix == '.pt':
        tensors, config = _read_pickle(path)
    else:
        raise InputError(f'{path} is no file of weights: use one of {", ".join(SUFFIXES)}')
    if config is None:
        return tensors, None
    return tensors, build(ModelConfig, json.loads(config), f'{path}: model')


def write_tensors(path: PathLike, tensors: Mapping[str, np.ndarray], config: ModelConfig) -> None:
    """Writes a file that the package loads (`.pt`, with `strict=True`) or anyone (`.safetensors`).

    The file appears under its name only once it is complete.

    Raises:
      InputError: for another suffix.
    """
    path = pathlib.Path(path)
    text = json.dumps(dataclasses.asdict(config))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.partial')
    try:
        if path.suffix == '.safetensors':
            from safetensors.numpy import save_file

            save_file(dict(tensors), partial, metadata={_CONFIG: text})
        elif path.suffix == '.pt':
            torch = _import_torch(path)
            state = {name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}
            torch.save({_TENSORS: state, _CONFIG: text}, partial)
        else:
            raise InputError(f'{path}: weights are written to {" or ".join(SUFFIXES)} files')
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _read_safetensors(path: pathlib.Path) -> tuple[StateDict, str | None]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='numpy') as file:
            tensors = {name: _to_float32(file.get_tensor(name), name) for name in file.keys()}  # noqa: SIM118
            return tensors, (file.metadata() or {}).get(_CONFIG)
    except (SafetensorError, OSError) as error:
        raise InputError(f'{path} is damaged ({error}): copy or download it again') from None


def _read_pickle(path: pathlib.Path) -> tuple[StateDict, str | None]:
    torch = _import_torch(path)
    try:
        with _numpy_scalars_allowed(torch):
            content = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(_why_refused(path, str(error))) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f'{path} is damaged ({reason}): copy or download it again') from None
    state = content.get(_TENSORS, content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not all(map(torch.is_tensor, state.values())):
        raise InputError(f'{path} holds no state dict, by itself or as {_TENSORS!r}')
    config = content.get(_CONFIG)
    return {name: _to_float32(tensor, name) for name, tensor in state.items()}, config


@contextlib.contextmanager
def _numpy_scalars_allowed(torch: Any) -> Iterator[None]:
    """Lets checkpoints hold NumPy numbers (the released one does), by name and nothing else."""
    scalar = np._core.multiarray.scalar
    allowed = [
        np.dtype,
        (scalar, 'numpy.core.multiarray.scalar'),
        (scalar, 'numpy._core.multiarray.scalar'),
        *{type(np.dtype(code)) for code in '?bhilqBHILQefd'},
    ]
    with torch.serialization.safe_globals(allowed):
        yield


def _why_refused(path: pathlib.Path, message: str) -> str:
    """One line out of PyTorch's page on why it did not load a pickle."""
    _, marker, rest = message.partition('GLOBAL ')
    if not marker:
        return f'{path} is not a file of PyTorch tensors: copy or download it again'
    wanted = rest.split()[0]
    return (
        f'{path} is refused: it asks for {wanted} to be run, which no file of weights needs; '
        'nothing was run. Get it from its authors, as .safetensors if they have it'
    )


def _to_float32(tensor: Any, name: str) -> np.ndarray:
    """A NumPy copy; float16 and bfloat16 fit into float32 exactly."""
    if hasattr(tensor, 'detach'):
        if not tensor.is_floating_point():
            raise InputError(f'tensor {name} holds no floating-point numbers: these are no weights')
        return tensor.detach().float().numpy()
    if not np.issubdtype(tensor.dtype, np.floating) and tensor.dtype.name != 'bfloat16':
        raise InputError(f'tensor {name} holds no floating-point numbers: these are no weights')
    return tensor.astype(np.float32)


def _import_torch(path: pathlib.Path) -> Any:
    try:
        import torch
    except ImportError:
        raise InputError(
            f"{path} is a PyTorch file and PyTorch is not installed: pip install 'm2l-jax[torch]', "
            'or use a .safetensors file'
        ) from None
    return torch

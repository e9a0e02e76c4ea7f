"""Reads and writes `.pt` and `.safetensors` files, without running what is in them."""

import contextlib
import json
import os
import pathlib
import pickle
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from m2l_jax.interface.errors import InputError, first_line
from m2l_jax.interface.paths import replaced_file
from m2l_jax.interface.settings import build
from m2l_jax.model.config import ModelConfig
from m2l_jax.torch_weights.state_dict import StateDict

PathLike = str | os.PathLike[str]

SUFFIXES = ('.pt', '.safetensors')

# Keys of the package's tensors, and of this project's record of sizes.
_TENSORS = 'gen_state_dict'
_CONFIG = 'm2l_jax_model_config'


def read_tensors(path: PathLike) -> tuple[StateDict, ModelConfig | None]:
    """Reads the tensors of a file, as float32, and its config if this project wrote the file.

    A `.pt` file is a pickle, which may hold any program: PyTorch's restricted reader runs nothing.

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
    tensors = {name: _to_float32(tensor, f'{path}: {name}') for name, tensor in tensors.items()}
    return tensors, None if config is None else _parse_config(config, path)


def write_tensors(
    path: PathLike,
    tensors: Mapping[str, np.ndarray],
    config: ModelConfig,
    most_bytes: int | None = None,
) -> None:
    """Writes a file that the package loads (`.pt`, with `strict=True`) or anyone (`.safetensors`).

    The file appears under its name only once it is complete.

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
                torch.save({_TENSORS: state, _CONFIG: text}, partial)
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


def _read_pickle(path: pathlib.Path) -> tuple[StateDict, str | None]:
    torch = import_torch(path)
    try:
        with _numpy_scalars_allowed(torch):
            content = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(_why_refused(path, str(error))) from None
    except Exception as error:  # a damaged pickle can raise any
        raise InputError(
            f'{path} is damaged ({first_line(error)}): copy or download it again'
        ) from None
    state = content.get(_TENSORS, content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and torch.is_tensor(tensor) and tensor.layout == torch.strided
        for name, tensor in state.items()
    ):
        raise InputError(f'{path} holds no state dict, by itself or as {_TENSORS!r}')
    return dict(state), content.get(_CONFIG)


def _parse_config(text: Any, path: pathlib.Path) -> ModelConfig:
    try:
        fields = json.loads(text)
        if isinstance(fields, dict):
            return build(ModelConfig, fields, f'{path}: model')
    except InputError:
        raise
    except (TypeError, ValueError, OverflowError, RecursionError):  # numbers or depth without end
        pass
    raise InputError(f'{path} has a damaged record of its sizes ({_CONFIG}): convert it again')


@contextlib.contextmanager
def _numpy_scalars_allowed(torch: Any) -> Iterator[None]:
    """Allows NumPy numbers, which the released checkpoint holds, and nothing else."""
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
    """One line from PyTorch's long message on a pickle that it refused."""
    _, marker, rest = message.partition('GLOBAL ')
    if not marker:
        return f'{path} is not a file of PyTorch tensors: copy or download it again'
    wanted = rest.split()[0]
    return (
        f'{path} is refused: it asks for {wanted} to be run, which no file of weights needs; '
        'nothing was run. Get it from its authors, as .safetensors if they have it'
    )


def _to_float32(tensor: Any, name: str) -> np.ndarray:
    """A NumPy array; only float64 is rounded."""
    if hasattr(tensor, 'detach') and tensor.is_floating_point():
        tensor = tensor.detach().float().numpy()
    if not isinstance(tensor, np.ndarray) or not jnp.issubdtype(tensor.dtype, jnp.floating):
        raise InputError(f'{name} holds no floating-point numbers: these are no weights')
    return tensor.astype(np.float32, copy=False)


def import_torch(path: PathLike) -> Any:
    """Imports PyTorch, or raises an InputError that says that `path` needs it."""
    try:
        import torch
    except ImportError:
        raise InputError(
            f"{path} is a PyTorch file and PyTorch is not installed: pip install 'm2l-jax[torch]', "
            'or use a .safetensors file'
        ) from None
    return torch

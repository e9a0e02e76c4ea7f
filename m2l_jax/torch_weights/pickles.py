"""Reads PyTorch's pickles without running what is in them."""

import contextlib
import os
import pathlib
import pickle
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from m2l_jax.interface.errors import InputError, first_line


def load_pickle(path: pathlib.Path) -> Any:
    """The content of a `.pt` file: tensors, numbers and containers of them.

    Raises:
      InputError: if the file is broken, or wants to run code.
    """
    torch = import_torch(path)
    try:
        with _numpy_scalars_allowed(torch):
            return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(_why_refused(path, str(error))) from None
    except Exception as error:  # a damaged pickle can raise any
        raise InputError(
            f'{path} is damaged ({first_line(error)}): copy or download it again'
        ) from None


def import_torch(path: str | os.PathLike[str]) -> Any:
    """Imports PyTorch, or raises an InputError that says that `path` needs it."""
    try:
        import torch
    except ImportError:
        raise InputError(
            f"{path} is a PyTorch file and PyTorch is not installed: pip install 'm2l-jax[torch]', "
            'or use a .safetensors file'
        ) from None
    return torch


def to_float32(tensor: Any, name: str) -> np.ndarray:
    """A tensor, or NumPy's, as a NumPy array; only float64 is rounded.

    Raises:
      InputError: if it is none, or not of floating-point numbers.
    """
    if hasattr(tensor, 'is_floating_point') and tensor.is_floating_point():
        tensor = tensor.detach().float().numpy()
    if not isinstance(tensor, np.ndarray) or not jnp.issubdtype(tensor.dtype, jnp.floating):
        raise InputError(f'{name} holds no floating-point numbers: these are no weights')
    return tensor.astype(np.float32, copy=False)


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

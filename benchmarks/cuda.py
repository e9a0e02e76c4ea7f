"""Whether there is a GPU to measure on."""

import jax
import torch

from m2l_jax.interface.errors import InputError


class Gpu:
    """One that both frameworks find; a `Remote` looks for it in a process of its own.

    Raises:
      InputError: if one of them does not. JAX would compute on the CPU then, and nobody would know.
    """

    def __init__(self):
        if jax.default_backend() != 'gpu':
            raise InputError("--device=cuda: JAX finds no GPU: pip install -e '.[cuda]'")
        if not torch.cuda.is_available():
            raise InputError('--device=cuda: PyTorch finds no GPU; is its CUDA build installed?')

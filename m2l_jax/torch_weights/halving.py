"""Tensors rounded to float16, for a file of half the size."""

import logging
from collections.abc import Mapping

import numpy as np

from m2l_jax.interface.errors import InputError
from m2l_jax.torch_weights.state_dict import StateDict

# float16 has 11 bits: what lies in its range is off by 2^-11 of itself, 4.9e-4, at most.
_MOST_ROUNDING = 1e-3

_logger = logging.getLogger(__name__)


def to_float16(tensors: Mapping[str, np.ndarray]) -> StateDict:
    """Rounds tensors, and logs how far the one that suffers most is moved, in relative L2 norm.

    Raises:
      InputError: for a number beyond float16's 65,504, or a tensor whose numbers are so small that
        rounding moves it by more than a thousandth of its norm.
    """
    with np.errstate(over='ignore'):
        halved = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    worst, largest = '', 0.0
    for name, tensor in tensors.items():
        if not np.all(np.isfinite(halved[name])):
            raise InputError(
                f'{name} holds {np.abs(tensor).max():.3g}, which float16 cannot: keep float32'
            )
        rounding = _relative_distance(tensor, halved[name])
        if rounding > largest:
            worst, largest = name, rounding
    if largest > _MOST_ROUNDING:
        raise InputError(
            f'{worst} holds numbers too small for float16, which moves it by {largest:.1e} of its '
            'norm: keep float32'
        )
    _logger.info('rounded to float16: %s moves most, by %.1e of its norm', worst, largest)
    return halved


def _relative_distance(tensor: np.ndarray, halved: np.ndarray) -> float:
    exact = tensor.astype(np.float64)
    norm = np.linalg.norm(exact)
    return float(np.linalg.norm(halved - exact) / norm) if norm else 0.0

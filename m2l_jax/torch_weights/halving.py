"""Tensors rounded to float16, for a file of half the size."""

import logging
from collections.abc import Mapping

import numpy as np

from m2l_jax.interface.errors import InputError
from m2l_jax.torch_weights.state_dict import StateDict

# float16 has 11 bits: what lies in its range is off by 2^-11 of itself, 4.9e-4, at most. Single
# numbers below that range, 6.1e-5, lose more of themselves, but never more than 3e-8.
_MOST_ROUNDING = 1e-3

_logger = logging.getLogger(__name__)


def to_float16(tensors: Mapping[str, np.ndarray], mend: str) -> StateDict:
    """Rounds tensors, and logs how far that moves them.

    Args:
      tensors: floating-point numbers by name.
      mend: what to do if float16 cannot hold them, for the message.

    Raises:
      InputError: for a number that is not finite or beyond float16's 65,504, or numbers so small
        that together they are moved by more than a thousandth of their norm.
    """
    with np.errstate(over='ignore'):
        halved = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if not np.all(np.isfinite(tensor)):
            raise InputError(f'{name} holds numbers that are not finite: its training diverged')
    error = norm = largest = 0.0
    for name, tensor in tensors.items():
        if not np.all(np.isfinite(halved[name])):
            raise InputError(
                f'{name} holds {np.abs(tensor).max():.3g}, which float16 cannot: {mend}'
            )
        moved = np.abs(halved[name] - tensor.astype(np.float64))
        error += np.sum(moved**2)
        norm += np.sum(tensor.astype(np.float64) ** 2)
        largest = max(largest, moved.max(initial=0))
    relative = np.sqrt(error / norm) if norm else 0.0
    if relative > _MOST_ROUNDING:
        raise InputError(
            f'the numbers are too small for float16, which moves them by {relative:.1e} of their '
            f'norm: {mend}'
        )
    _logger.info(
        'rounded to float16: by %.1e of the norm of all numbers, each by %.1e at most',
        relative,
        largest,
    )
    return halved

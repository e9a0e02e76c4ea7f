"""Nearest-neighbour repetition and the convolution after it as one, for CPUs and GPUs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def convolve_repeated(
    convolve: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array, factors: tuple[int, int]
) -> jax.Array:
    """Convolution of `x` with each entry repeated, without the repetition.

    Shi et al. 2016 ("sub-pixel convolution"). Of s + 1 neighbours in a repeated signal only two
    differ. So each of the s outputs of an input is a sum over two inputs, weighted by sums of the
    kernel's entries: 4/9 of the multiplications for factors (2, 2), 2/5 for (4, 1). On a TPU, whose
    limit is its memory, moving the outputs to their places costs more than that saves.

    Args:
      convolve: (x, kernel, strides, pads) to `[B, F', T', K]`.
      x: `[B, F, T, C]`.
      kernel: `[f + 1, t + 1, C, K]`, or 1 entry along an axis that is not repeated.
      factors: (f, t), each 1 or even.

    Returns:
      `[B, F·f, T·t, K]`, of the repeated `x` padded by half the kernel on each side.
    """
    sums = [_sums_of_entries(factor) for factor in factors]
    phases = jnp.einsum(
        'apt,bqu,tuco->abcpqo', *sums, kernel.astype(jnp.float32), precision='highest'
    )  # [2, 2, C, f, t, K], with 1 for 2 where the factor is 1
    pads = tuple((0, 0) if factor == 1 else (1, 1) for factor in factors)
    flat = phases.reshape(*phases.shape[:3], -1).astype(kernel.dtype)
    # Each output is of two inputs: F + 1 and T + 1 of them, or F and T where the factor is 1.
    y = convolve(x, flat, (1, 1), pads)  # [B, F + 1, T + 1, f·t·K]
    y = y.reshape(*y.shape[:3], *phases.shape[3:])  # [B, F + 1, T + 1, f, t, K]
    y = _interleave(y, 2, x.shape[2])  # [B, F + 1, T·t, f, K]
    return _interleave(y, 1, x.shape[1])  # [B, F·f, T·t, K]


def _sums_of_entries(factor: int) -> np.ndarray:
    """Ones where a kernel's entry meets the first or second input: `[2, factor, factor + 1]`.

    Of the outputs to input i, the first half are of the inputs i - 1 and i, the others of i and
    i + 1.
    """
    if factor == 1:
        return np.ones((1, 1, 1), np.float32)
    entries = np.arange(factor + 1)
    meets = np.zeros((2, factor, factor + 1), np.float32)
    for phase in range(factor):
        inputs = (phase - factor // 2 + entries) // factor  # relative to i
        meets[inputs - inputs[0], phase, entries] = 1
    return meets


def _interleave(y: jax.Array, axis: int, inputs: int) -> jax.Array:
    """Moves the phases, two axes after `axis`, to their places along it."""
    factor = y.shape[axis + 2]
    shifts = [int(phase >= factor // 2) if factor > 1 else 0 for phase in range(factor)]
    aligned = [
        jax.lax.slice_in_dim(
            jax.lax.index_in_dim(y, phase, axis + 2, keepdims=False),
            shift,
            shift + inputs,
            axis=axis,
        )
        for phase, shift in enumerate(shifts)
    ]
    stacked = jnp.stack(aligned, axis + 1)
    return stacked.reshape(*y.shape[:axis], inputs * factor, *stacked.shape[axis + 2 :])

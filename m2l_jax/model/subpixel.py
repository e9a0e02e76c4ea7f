"""Nearest-neighbour repetition and the convolution after it as one convolution before it."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from m2l_jax.model.convolution import convolve


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve_repeated(
    x: jax.Array,
    kernel: jax.Array,
    factors: tuple[int, int],
    precision: jax.lax.PrecisionLike = None,
) -> jax.Array:
    """What a convolution makes of `x` with each entry repeated, on a CPU without the repetition.

    Shi et al. 2016 ("sub-pixel convolution"). Of s + 1 neighbours of a repeated signal only two
    differ, so that each of the s outputs to an input is a sum over two inputs, with sums of the
    kernel's entries: 4/9 of the multiplications for factors (2, 2), 2/5 for (4, 1). A TPU's limit
    is its memory, and there the outputs' way to their places costs more than that saves.

    Args:
      x: `[B, F, T, C]`.
      kernel: `[f + 1, t + 1, C, K]`, or 1 entry along an axis that is not repeated.
      factors: (f, t), each 1 or even.
      precision: of the products, as in `jax.lax`.

    Returns:
      `[B, F·f, T·t, K]`, of the repeated `x` padded by half the kernel on each side.
    """
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=lambda *inputs: _convolve_inputs(*inputs, factors, precision),
        default=lambda *inputs: _repeat_and_convolve(*inputs, factors, precision),
    )


def _forward(
    x: jax.Array,
    kernel: jax.Array,
    factors: tuple[int, int],
    precision: jax.lax.PrecisionLike,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    # Only the inputs are kept: left to itself, JAX would keep what each platform's way needs.
    return convolve_repeated(x, kernel, factors, precision), (x, kernel)


def _backward(
    factors: tuple[int, int],
    precision: jax.lax.PrecisionLike,
    inputs: tuple[jax.Array, jax.Array],
    gradient: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    def through(function):
        def pull_back(x, kernel, gradient):
            _, vjp = jax.vjp(lambda *inputs: function(*inputs, factors, precision), x, kernel)
            return vjp(gradient)

        return pull_back

    return jax.lax.platform_dependent(
        *inputs,
        gradient,
        cpu=through(_convolve_inputs),
        default=through(_repeat_and_convolve),
    )


convolve_repeated.defvjp(_forward, _backward)


def _repeat_and_convolve(
    x: jax.Array, kernel: jax.Array, factors: Sequence[int], precision: jax.lax.PrecisionLike
) -> jax.Array:
    for axis, factor in zip((1, 2), factors, strict=True):
        if factor > 1:
            x = jnp.repeat(x, factor, axis=axis)
    pads = [(size // 2, size // 2) for size in kernel.shape[:2]]
    return convolve(x, kernel, (1, 1), pads, precision=precision)


def _convolve_inputs(
    x: jax.Array, kernel: jax.Array, factors: Sequence[int], precision: jax.lax.PrecisionLike
) -> jax.Array:
    sums = [_sums_of_entries(factor) for factor in factors]
    phases = jnp.einsum(
        'apt,bqu,tuco->abcpqo',
        *sums,
        kernel.astype(jnp.float32),
        precision='highest',
    )  # [2, 2, C, f, t, K], the 2 being 1 for a factor of 1
    pads = [(0, 0) if factor == 1 else (1, 1) for factor in factors]
    flat = phases.reshape(*phases.shape[:3], -1).astype(kernel.dtype)
    # Each output is of two inputs: F + 1 and T + 1 of them, or F and T where the factor is 1.
    y = convolve(x, flat, (1, 1), pads, precision=precision)  # [B, F + 1, T + 1, f·t·K]
    y = y.reshape(*y.shape[:3], *phases.shape[3:])  # [B, F + 1, T + 1, f, t, K]
    y = _interleave(y, 2, x.shape[2])  # [B, F + 1, T·t, f, K]
    return _interleave(y, 1, x.shape[1])  # [B, F·f, T·t, K]


def _sums_of_entries(factor: int) -> np.ndarray:
    """Which of a kernel's entries meet the first and the second input: `[2, factor, factor + 1]`.

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
    """Takes the phases, two axes after `axis`, to where they belong along it."""
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

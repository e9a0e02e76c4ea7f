"""Winograd's minimal filtering for 3 × 3 convolutions on CPUs, strip by strip."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from m2l_jax.cpu_kernels.strips import Prepare, largest_strip, late_zero, padded_rows
from m2l_jax.cpu_kernels.winograd_transforms import (
    INPUTS,
    OUTPUTS,
    TAPS,
    Transformed,
    transform_inputs,
    transform_kernel,
    transform_outputs,
    transpose_of_inputs,
    transpose_of_kernel,
    transpose_of_outputs,
)

# Of the transformed inputs or products of a strip. Programs that encode and decode are ordered to
# need little memory, so products follow one another: with 5 MB, they took 1.1 times as long.
_STRIP_BYTES = 25e6
# Training has room to make products side by side. Then 5 MB, nearer to the processor, is 1.02 to
# 1.2 times as fast as 10 MB.
_GRADIENT_STRIP_BYTES = 5e6
# Two rows of tiles. With a single one, and rows sliced, XLA read them in several places and, for
# that, copied the whole input in each turn.
_LEAST_BINS = 2 * OUTPUTS
# Below, a layer gains less in a whole process than its compilation costs.
_LEAST_OPERATIONS = 4.5e9
# Below, transforms cost more than multiplications save.
_LEAST_CHANNELS = 64


def pays(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], pads: Sequence[tuple[int, int]]
) -> bool:
    """Selects `x` `[B, ..., C]` and `kernel` `[..., C, K]` for which `convolve` is faster."""
    if kernel.shape[:-2] != (TAPS, TAPS) or x.shape[1] % _LEAST_BINS or max(strides) > 1:
        return False
    if any(tuple(pad) != (1, 1) for pad in pads):
        return False
    if x.dtype != jnp.float32 or kernel.dtype != jnp.float32:
        return False
    operations = 2 * math.prod(x.shape[:3]) * kernel.size
    return min(kernel.shape[-2:]) >= _LEAST_CHANNELS and operations >= _LEAST_OPERATIONS


def convolve(x: jax.Array, kernel: jax.Array, prepare: Prepare = lambda rows: rows) -> jax.Array:
    """Convolution padded by 1 on each side, in a quarter of the multiplications.

    Rounding errors are 6 to 10 times those of the plain one, 1e-6 of the output; a value that is
    not finite spoils its tile. Each strip of frequencies is prepared, transformed, multiplied and
    transformed back before the next.

    Args:
      x: `[B, F, T, C]`, float32, F a multiple of 8.
      kernel: `[3, 3, C, K]`, float32.
      prepare: maps rows `[B, R, T, C]` of `x` to what is convolved.

    Returns:
      `[B, F, T, K]`.
    """
    batch, bins, frames, channels = x.shape
    outputs = kernel.shape[-1]
    weights = transform_kernel(kernel)
    size = _strip_bins(bins, batch * frames, max(channels, outputs), _STRIP_BYTES)
    # An output as large as its input takes its place; XLA copies an input that is still needed.
    in_place = channels == outputs

    def convolve_strip(
        index: jax.Array, carry: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        y, previous = carry
        start = index * size
        padded = _pad_time(padded_rows(y if in_place else x, start - 1, size + TAPS - 1, prepare))
        # The row before may be overwritten by now.
        above = jnp.where(start > 0, previous[:, -2:-1], 0)
        padded = jax.lax.dynamic_update_slice_in_dim(padded, above, 0, axis=1)
        strip = _convolve_padded(padded, weights)[:, :, :frames]
        # The strip is handed on whole: XLA prepared its last row alone once more, and for that
        # copied all of y in each turn.
        return jax.lax.dynamic_update_slice_in_dim(y, strip, start, axis=1), padded

    y = x if in_place else jnp.zeros_like(x, shape=(batch, bins, frames, outputs))
    previous = _pad_time(jnp.zeros_like(x, shape=(batch, size + TAPS - 1, frames, channels)))
    return jax.lax.fori_loop(0, bins // size, convolve_strip, (y, previous))[0]


def pull_back(
    x: jax.Array,
    kernel: jax.Array,
    gradient: jax.Array,
    prepare: Prepare = lambda rows: rows,
) -> tuple[jax.Array, jax.Array]:
    """Gradients of `convolve`, in a quarter of the multiplications too.

    Each strip is prepared again. XLA would prepare the whole long before it is needed, and keep it.

    Args:
      x: `[B, F, T, C]`, float32, F a multiple of 8.
      kernel: `[3, 3, C, K]`, float32.
      gradient: of the outputs, `[B, F, T, K]`.
      prepare: maps rows `[B, R, T, C]` of `x` to what is convolved.

    Returns:
      The gradients of what is convolved and of `kernel`.
    """
    batch, bins, frames, channels = x.shape
    weights = transform_kernel(kernel)
    wider = max(channels, kernel.shape[-1])
    size = _strip_bins(bins, batch * frames, wider, _GRADIENT_STRIP_BYTES)
    in_place = channels == kernel.shape[-1]  # as in `convolve`
    late = late_zero(gradient).astype(jnp.int32)

    def pull_strip_back(
        index: jax.Array, carry: tuple[jax.Array, Transformed, jax.Array]
    ) -> tuple[jax.Array, Transformed, jax.Array]:
        of_x, of_weights, shared = carry
        start = index * size
        rows = _pad_time(padded_rows(x, start - 1 + late, size + TAPS - 1, prepare))
        inputs = transform_inputs(rows)
        of_strip = padded_rows(of_x if in_place else gradient, start, size)
        of_strip = jnp.pad(of_strip, ((0, 0), (0, 0), (0, -frames % OUTPUTS), (0, 0)))
        products = transpose_of_outputs(of_strip)
        of_weights = jax.tree.map(jnp.add, of_weights, _products(inputs, products, (1, 1)))
        of_inputs = _products(products, weights, (2, 2))
        part = transpose_of_inputs(of_inputs, rows.shape)
        part += jnp.pad(shared, ((0, 0), (0, size), (0, 0), (0, 0)))
        # The first row of `part` completes the row before the strip; the next strip completes, and
        # stores, this strip's last row.
        done = jax.lax.dynamic_slice_in_dim(part, (index == 0).astype(jnp.int32), size, axis=1)
        of_x = jax.lax.dynamic_update_slice_in_dim(
            of_x, done[:, :, 1 : 1 + frames], jnp.maximum(start - 1, 0), axis=1
        )
        return of_x, of_weights, part[:, size:]

    carry = (
        gradient if in_place else jnp.zeros_like(x),
        jax.tree.map(lambda weight: jnp.zeros_like(x, shape=weight.shape), weights),
        jnp.zeros_like(x, shape=(batch, OUTPUTS, frames + -frames % OUTPUTS + OUTPUTS, channels)),
    )
    of_x, of_weights, shared = jax.lax.fori_loop(0, bins // size, pull_strip_back, carry)
    of_x = of_x.at[:, -1].set(shared[:, 0, 1 : 1 + frames])
    return of_x, transpose_of_kernel(of_weights)


def _strip_bins(bins: int, frames: int, channels: int, most_bytes: float) -> int:
    """Bins that are transformed at a time, in whole tiles."""
    tiles = -(-frames // OUTPUTS) / OUTPUTS
    return largest_strip(bins, 4 * channels * INPUTS**2 * tiles, most_bytes, _LEAST_BINS)


def _pad_time(x: jax.Array) -> jax.Array:
    """Appends a zero before, and after as many as the last tile reads."""
    return jnp.pad(x, ((0, 0), (0, 0), (1, 1 + -x.shape[2] % OUTPUTS), (0, 0)))


def _convolve_padded(x: jax.Array, weights: Transformed) -> jax.Array:
    """Padded rows `[B, R + 2, T + 2, C]` and transformed weights to `[B, R, T, K]`."""
    products = _products(transform_inputs(x), weights, (2, 1))
    batch, rows, frames, _ = x.shape
    margin = TAPS - 1
    shape = (batch, rows - margin, frames - margin, weights[0][0].shape[-1])
    return transform_outputs(products, shape)


def _products(x: Transformed, y: Transformed, contracted: tuple[int, int]) -> Transformed:
    """Products of each of the 36 pairs of matrices, along the given axis of each."""
    axes = (((contracted[0],), (contracted[1],)), ((0,), (0,)))
    return jax.tree.map(functools.partial(jax.lax.dot_general, dimension_numbers=axes), x, y)

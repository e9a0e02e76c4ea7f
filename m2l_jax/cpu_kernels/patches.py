"""Convolutions for CPUs as products of patches in bfloat16, strip by strip."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from m2l_jax.cpu_kernels.strips import Prepare, find_patches, padded_rows

# Of the patches of a strip.
_STRIP_BYTES = 2e6
# Below, a layer gains less in a whole process than its compilation costs.
_LEAST_OPERATIONS = 1e9
# Below, rounding and copying cost more than faster products save.
_LEAST_INPUTS = 128
_LEAST_OUTPUTS = 64


def pays(x: jax.Array, kernel: jax.Array, strides: Sequence[int]) -> bool:
    """Selects `x` `[B, ..., C]` and `kernel` `[..., C, K]` for which `convolve` is faster."""
    if x.ndim != 4 or x.dtype != jnp.float32 or kernel.dtype != jnp.float32:
        return False
    *sides, inputs, outputs = kernel.shape
    met = math.prod(sides) * inputs  # by each output
    operations = 2 * math.prod(x.shape[:3]) // math.prod(strides) * kernel.size
    enough = met >= _LEAST_INPUTS and outputs >= _LEAST_OUTPUTS
    return enough and operations >= _LEAST_OPERATIONS


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    prepare: Prepare = lambda rows: rows,
    *,
    strides: Sequence[int],
    pads: Sequence[tuple[int, int]],
) -> jax.Array:
    """Convolution of operands rounded to bfloat16, summed in float32.

    Args:
      x: `[B, F, T, C]`, float32.
      kernel: `[H, W, C, K]`, float32.
      prepare: maps rows `[B, R, T, C]` of `x` to what is convolved.
      strides: along F and T.
      pads: (before, after) along F and T.

    Returns:
      `[B, F', T', K]`, float32.
    """
    bins, frames = (
        (length + sum(pad) - side) // stride + 1
        for length, pad, side, stride in zip(
            x.shape[1:3], pads, kernel.shape[:2], strides, strict=True
        )
    )
    batch, outputs = len(x), kernel.shape[-1]
    weights = kernel.astype(jnp.bfloat16).reshape(-1, outputs)  # [H·W·C, K]
    size = min(bins, max(1, int(_STRIP_BYTES / (2 * batch * frames * len(weights)))))

    def convolve_strip(index: jax.Array, y: jax.Array) -> jax.Array:
        # The last strip begins early enough to be whole.
        start = jnp.minimum(index * size, bins - size)
        count = (size - 1) * strides[0] + kernel.shape[0]
        rows = _round(padded_rows(x, start * strides[0] - pads[0][0], count, prepare))
        zero, sides = jnp.zeros((), rows.dtype), kernel.shape[:2]
        found = find_patches(rows, zero, sides, strides, ((0, 0), pads[1]), (size, frames))
        joined = jax.lax.bitcast_convert_type(jnp.concatenate(found, axis=-1), jnp.bfloat16)
        strip = jnp.matmul(joined, weights, preferred_element_type=jnp.float32)
        strip = strip.reshape(batch, size, frames, outputs)
        return jax.lax.dynamic_update_slice_in_dim(y, strip, start, axis=1)

    y = jnp.zeros_like(x, shape=(batch, bins, frames, outputs))
    return jax.lax.fori_loop(0, -(-bins // size), convolve_strip, y)


def _round(x: jax.Array) -> jax.Array:
    """Bits of bfloat16: XLA would move bfloat16 as float32, converted back and forth."""
    return jax.lax.bitcast_convert_type(x.astype(jnp.bfloat16), jnp.uint16)

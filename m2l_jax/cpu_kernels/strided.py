"""Convolutions for CPUs that shrink frequency alone, strip by strip."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from m2l_jax.cpu_kernels.strips import Prepare, largest_strip, padded_rows

# Of the inputs of a strip: layers of 10 s took as long with up to 7 MB, 1.3 times with 28 MB.
_STRIP_BYTES = 4e6
# Below, as for one crop in training, strips take as long as XLA's convolution.
_LEAST_OPERATIONS = 4.5e9


def pays(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], pads: Sequence[tuple[int, int]]
) -> bool:
    """Selects `x` `[B, F, T, C]` and `kernel` `[H, W, C, K]` for which `convolve` is faster."""
    if x.ndim != 4 or x.dtype != jnp.float32 or kernel.dtype != jnp.float32:
        return False
    stride = strides[0]
    shrinks = stride > 1 and stride % 2 == 0 and x.shape[1] % stride == 0
    half = stride // 2
    if not shrinks or strides[1] != 1 or kernel.shape[:2] != (stride + 1, 1):
        return False
    operations = 2 * math.prod(x.shape[:3]) // stride * kernel.size
    return tuple(map(tuple, pads)) == ((half, half), (0, 0)) and operations >= _LEAST_OPERATIONS


def convolve(x: jax.Array, kernel: jax.Array, prepare: Prepare = lambda rows: rows) -> jax.Array:
    """Convolution over frequency with an even stride, padded by half of it on both sides.

    For each strip, the prepared rows are multiplied with each entry of the kernel: XLA's own
    convolution reaches a third of a matrix product's speed here.

    Args:
      x: `[B, F, T, C]`, F a multiple of the stride s.
      kernel: `[s + 1, 1, C, K]`.
      prepare: maps rows `[B, R, T, C]` of `x` to what is convolved.

    Returns:
      `[B, F/s, T, K]`.
    """
    batch, bins, frames, channels = x.shape
    stride = kernel.shape[0] - 1
    half = stride // 2
    outputs = bins // stride
    row_bytes = 4 * stride * batch * frames * channels  # of the inputs of an output
    size = largest_strip(outputs, row_bytes, _STRIP_BYTES)

    def convolve_strip(index: jax.Array, y: jax.Array) -> jax.Array:
        start = index * size
        # No output of a strip reaches beyond the end of the strip's own rows.
        rows = padded_rows(x, start * stride - half, half + size * stride, prepare)

        def product(entry: int) -> jax.Array:
            end = entry + (size - 1) * stride + 1
            part = jax.lax.slice_in_dim(rows, entry, end, stride, axis=1)
            return jnp.matmul(part, kernel[entry, 0])

        strip = sum(product(entry) for entry in range(stride + 1))
        return jax.lax.dynamic_update_slice_in_dim(y, strip, start, axis=1)

    y = jnp.zeros_like(x, shape=(batch, outputs, frames, kernel.shape[-1]))
    return jax.lax.fori_loop(0, outputs // size, convolve_strip, y)

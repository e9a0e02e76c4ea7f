"""Means over the frames of rows of which only the first count."""

import math

import jax
import jax.numpy as jnp

from m2l_jax.model.masks import mask_time
from m2l_jax.model.strips import Prepare, largest_strip, unprepared

# Of the inputs of a strip.
_STRIP_BYTES = 2e6
# Below, a strip after another saves less than its compilation costs.
_LEAST_BYTES = 25e6


def channel_means(
    x: jax.Array, lengths: jax.Array | None, terms: Prepare = unprepared
) -> jax.Array:
    """Means of terms over space, for each row and channel.

    Args:
      x: `[B, ..., T, C]`, float32.
      lengths: `[B]`, how many frames of each row count; None: all.
      terms: of which the means are: `[B, ..., T, C]` of any part of `x`.

    Returns:
      `[B, C]`.
    """
    space = range(1, x.ndim - 1)
    if lengths is None:
        return jnp.mean(terms(x), axis=space)

    def whole(x: jax.Array) -> jax.Array:
        return jnp.sum(mask_time(terms(x), lengths), axis=space)

    def strips(x: jax.Array) -> jax.Array:
        # With a selection among them, XLA would write the terms to memory before it sums them up.
        bins = x.shape[1]
        size = largest_strip(bins, _bytes(x) / bins, _STRIP_BYTES)

        def add_strip(index: jax.Array, total: jax.Array) -> jax.Array:
            return total + whole(jax.lax.dynamic_slice_in_dim(x, index * size, size, axis=1))

        zeros = jnp.zeros_like(x, shape=(x.shape[0], x.shape[-1]))
        return jax.lax.fori_loop(0, bins // size, add_strip, zeros)

    if x.ndim == 4 and _bytes(x) >= _LEAST_BYTES:
        total = jax.lax.platform_dependent(x, cpu=strips, default=whole)
    else:
        total = whole(x)
    counts = jnp.maximum(lengths, 1) * math.prod(x.shape[1:-2])  # [B]
    return total / counts[:, None]


def _bytes(x: jax.Array) -> int:
    return x.size * x.dtype.itemsize

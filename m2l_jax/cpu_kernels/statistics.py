"""Sums over space for CPUs."""

import jax
import jax.numpy as jnp

from m2l_jax.cpu_kernels.strips import Prepare, largest_strip

# Of the inputs of a strip.
_STRIP_BYTES = 2e6
# Below, strips save less than their compilation costs.
_LEAST_BYTES = 25e6


def sum_over_space(x: jax.Array, terms: Prepare) -> jax.Array:
    """Sums of `terms(x)` over all axes but the first and last, in strips where that is faster.

    Args:
      x: `[B, ..., T, C]`.
      terms: maps rows of `x`, each by itself, to what is added up.

    Returns:
      `[B, C]`.
    """

    def whole(x: jax.Array) -> jax.Array:
        return jnp.sum(terms(x), axis=range(1, x.ndim - 1))

    bins, size_bytes = x.shape[1], x.size * x.dtype.itemsize
    if x.ndim != 4 or size_bytes < _LEAST_BYTES:
        return whole(x)
    # With a selection among the terms, XLA would write them to memory before it adds them up.
    size = largest_strip(bins, size_bytes / bins, _STRIP_BYTES)

    def add_strip(index: jax.Array, total: jax.Array) -> jax.Array:
        return total + whole(jax.lax.dynamic_slice_in_dim(x, index * size, size, axis=1))

    zeros = jnp.zeros_like(x, shape=(x.shape[0], x.shape[-1]))
    return jax.lax.fori_loop(0, bins // size, add_strip, zeros)

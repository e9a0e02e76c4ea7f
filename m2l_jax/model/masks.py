"""Rows of which only the first frames count."""

import jax
import jax.numpy as jnp


def mask_time(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """`[B, ..., T, C]` with zeros after the first `lengths` `[B]` frames of each row; None: all."""
    return x if lengths is None else jnp.where(_is_counted(x, lengths), x, 0)


def _is_counted(x: jax.Array, lengths: jax.Array) -> jax.Array:
    """Which frames of `[B, ..., T, C]` are a row's own: `[B, 1…, T, 1]`."""
    counted = jnp.arange(x.shape[-2]) < lengths[:, None]  # [B, T]
    return jnp.expand_dims(counted, (*range(1, x.ndim - 2), x.ndim - 1))

"""What layers have in common that a CPU computes a strip at a time, near to the processor."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

# Rows `[B, R, T, C]` of an array to what is to be convolved, or summed up, of them.
Prepare = Callable[[jax.Array], jax.Array]


def unprepared(rows: jax.Array) -> jax.Array:
    """Rows as they are."""
    return rows


def largest_strip(rows: int, row_bytes: float, most_bytes: float, multiple: int = 1) -> int:
    """The most rows, in multiples, that divide `rows` and take `most_bytes`; a multiple at least.

    Args:
      rows: in all, a multiple of `multiple`.
      row_bytes: of what one row becomes.
      most_bytes: of what a strip may become.
      multiple: what rows come in.
    """
    fitting = [
        size
        for size in range(multiple, rows + 1, multiple)
        if rows % size == 0 and size * row_bytes <= most_bytes
    ]
    return max(fitting, default=multiple)


def padded_rows(
    x: jax.Array, first: jax.Array, count: int, prepare: Prepare = unprepared
) -> jax.Array:
    """Rows of `[B, F, T, C]` from `first` on, prepared, `[B, count, T, C]`; beyond F, zeros.

    They are gathered. A slice at a place known at run time only XLA fuses into what is computed
    from it, which then takes several times as long; a gather it does not fuse.
    """
    rows = first + jnp.arange(count)
    inside = (rows >= 0) & (rows < x.shape[1])
    part = prepare(jnp.take(x, rows, axis=1, mode='clip'))
    return jnp.where(inside[:, None, None], part, 0)


def late_zero(gradient: jax.Array) -> jax.Array:
    """A zero that XLA cannot know before it has the gradient.

    What it is part of is computed after the gradient, and not long before, to be kept.
    """
    first = gradient[(0,) * gradient.ndim]
    return jnp.where(jnp.isfinite(first), 0 * first, 0)

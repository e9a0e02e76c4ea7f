"""Parts that all kernels share which work strip by strip, in reach of the processor's cache."""

import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

# Maps rows `[B, R, T, C]` of an array to what is convolved, or added up.
Prepare = Callable[[jax.Array], jax.Array]


def largest_strip(rows: int, row_bytes: float, most_bytes: float, multiple: int = 1) -> int:
    """Largest number of rows that divides `rows` and takes at most `most_bytes`.

    Args:
      rows: all of them, a multiple of `multiple`.
      row_bytes: memory for each row.
      most_bytes: memory for a strip.
      multiple: divides the result, which is not below it.
    """
    fitting = [
        size
        for size in range(multiple, rows + 1, multiple)
        if rows % size == 0 and size * row_bytes <= most_bytes
    ]
    return max(fitting, default=multiple)


def padded_rows(
    x: jax.Array, first: jax.Array, count: int, prepare: Prepare = lambda rows: rows
) -> jax.Array:
    """Rows of `[B, F, T, C]` from `first` on, prepared, `[B, count, T, C]`; beyond F, zeros.

    They are gathered: XLA fuses a slice at a place known at run time into what is computed from it,
    which then takes several times as long. It does not fuse a gather.
    """
    rows = first + jnp.arange(count)
    inside = (rows >= 0) & (rows < x.shape[1])
    part = prepare(jnp.take(x, rows, axis=1, mode='clip'))
    return jnp.where(inside[:, None, None], part, 0)


def late_zero(gradient: jax.Array) -> jax.Array:
    """Zero that XLA does not know before it has the gradient.

    So XLA does not compute what depends on it early, and keep it.
    """
    first = gradient[(0,) * gradient.ndim]
    return jnp.where(jnp.isfinite(first), 0 * first, 0)


def find_patches(
    x: jax.Array,
    zero: jax.Array,
    sides: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[tuple[int, int]],
    outputs: Sequence[int],
) -> list[jax.Array]:
    """Inputs `[N, C]` that each entry of a kernel meets, one for each of N outputs."""
    config = [(before, after, 0) for before, after in ((0, 0), *pads, (0, 0))]
    padded = jax.lax.pad(x, zero.astype(x.dtype), config)

    def patch(entry: Sequence[int]) -> jax.Array:
        ends = [
            start + (count - 1) * stride + 1
            for start, count, stride in zip(entry, outputs, strides, strict=True)
        ]
        part = jax.lax.slice(padded, (0, *entry, 0), (len(x), *ends, x.shape[-1]), (1, *strides, 1))
        return part.reshape(-1, x.shape[-1])

    return [patch(entry) for entry in itertools.product(*map(range, sides))]

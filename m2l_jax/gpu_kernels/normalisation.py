"""Group normalisation, activation and their gradients for NVIDIA's GPUs: little memory traffic.

Each pass reads and writes only arrays in the type of the input: one pass for statistics, one for
the result; one for the sums of the gradient, one for the gradient. Reverse-mode differentiation
only.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

_PARTS = 32  # of fewer, XLA stores the terms of a gradient's sums, in float32
_SUM = 4096  # terms that XLA sums up in one kernel; it takes two for more
_FEW = 512  # terms that cost less to store than another kernel
_EPSILON = 1e-5
Activation = Callable[[jax.Array], jax.Array]


class _Statistics(NamedTuple):
    """x·factor + offset is x + shift normalised, and total its sum over space; `[B, C]` each."""

    factor: jax.Array
    offset: jax.Array
    total: jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def normalise(
    activation: Activation,
    groups: int,
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    shift: jax.Array | None,
    mask: jax.Array | None,
) -> jax.Array:
    """activation(group_norm(x + shift)·scale + bias), zeros outside of `mask`.

    Args:
      activation: maps numbers one by one.
      groups: of channels.
      x: `[B, ..., C]`; the result has its type.
      scale, bias: `[C]`.
      shift: `[B, C]`; None for 0.
      mask: what counts, 1 or 0, broadcastable to `x`; None for all.
    """
    return _forward(activation, groups, x, scale, bias, shift, mask)[0]


def _forward(activation, groups, x, scale, bias, shift, mask):
    statistics = _statistics(groups, x, shift, mask)
    y = activation(_scaled(x, scale, bias, statistics))
    return _masked(y, mask).astype(x.dtype), (x, scale, bias, shift, mask, statistics)


def _backward(activation, groups, saved, gradient):
    x, scale, bias, shift, mask, statistics = saved
    factor, offset, total = statistics
    scale32 = scale.astype(jnp.float32)

    def of_scaled(x, gradient):
        """The gradient by what is activated."""
        scaled = _scaled(x, scale, bias, statistics)
        _, slope = jax.jvp(activation, (scaled,), (jnp.ones_like(scaled),))
        return _masked(slope * gradient, mask)

    terms = of_scaled(x, gradient)
    plain, weighted = _sum_space(_FEW, terms, terms * x)
    weighted = weighted * factor + plain * offset  # by x normalised
    points = _points(x, mask)
    mean, slope = (_pool(groups, value * scale32 / points) for value in (plain, weighted))
    # Computed again: XLA would store it for both passes, in float32.
    x, gradient = jax.lax.optimization_barrier((x, gradient))
    terms = of_scaled(x, gradient)
    of_x = terms * _row(scale32 * factor, x) - x * _row(slope * factor**2, x)
    of_x = _masked(of_x - _row((mean + slope * offset) * factor, x), mask)
    of_bias, of_scale = _sum((plain, weighted), (0,))
    of_shift = None
    if shift is not None:
        of_shift = (plain * scale32 - points * mean - slope * total) * factor
        of_shift = of_shift.astype(shift.dtype)
    return (
        of_x.astype(x.dtype),
        of_scale.astype(scale.dtype),
        of_bias.astype(bias.dtype),
        of_shift,
        None,
    )


normalise.defvjp(_forward, _backward)


def _statistics(
    groups: int, x: jax.Array, shift: jax.Array | None, mask: jax.Array | None
) -> _Statistics:
    """From one pass; of float32, sums of x less a number of the row, against cancellation.

    (Where the mean of 16-bit numbers is so large that it matters, they have no digits left.)
    """
    pivot = jnp.zeros((x.shape[0], 1))
    if x.dtype == jnp.float32:
        pivot = x.reshape(x.shape[0], -1)[:, :1]
    less = _masked(x.astype(jnp.float32) - _row(pivot, x), mask)
    sums, squares = _sum_space(_SUM, less, less**2)
    points = _points(x, mask)
    if shift is None:
        shift = jnp.zeros_like(sums)
    shift = shift.astype(jnp.float32)
    squares += shift * (2 * sums + shift * points)
    sums += shift * points
    center = _pool(groups, sums / points)
    variance = jnp.maximum(_pool(groups, squares / points) - center**2, 0)
    factor = jax.lax.rsqrt(variance + _EPSILON)
    return _Statistics(factor, (shift - pivot - center) * factor, (sums - points * center) * factor)


def _scaled(x: jax.Array, scale: jax.Array, bias: jax.Array, statistics: _Statistics) -> jax.Array:
    """x + shift normalised, scaled and shifted, float32."""
    scale = scale.astype(jnp.float32)
    return x * _row(statistics.factor * scale, x) + _row(statistics.offset * scale + bias, x)


def _points(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Points of space that count, `[B, 1]` or `[1, 1]`, at least one."""
    space = math.prod(x.shape[1:-1])
    if mask is None:
        return jnp.full((1, 1), space, jnp.float32)
    counted = mask.reshape(x.shape[0], -1).sum(-1, keepdims=True)  # [B, 1]
    return jnp.maximum(counted, 1) * (space / math.prod(mask.shape[1:]))


def _sum_space(most: int, *terms: jax.Array) -> tuple[jax.Array, ...]:
    """Sums of arrays `[B, F, ..., C]` over space, `[B, C]`; of more than `most` terms, in parts."""
    batch, bins, *space, channels = terms[0].shape
    parts = math.gcd(bins, _PARTS) if math.prod((bins, *space)) > most else 1
    sums = _sum([term.reshape(batch, parts, -1, channels) for term in terms], (2,))
    return _sum(sums, (1,)) if parts > 1 else tuple(part[:, 0] for part in sums)


def _pool(groups: int, values: jax.Array) -> jax.Array:
    """Means over groups of channels, `[B, C]`, each in all of its group's places.

    Written as additions, which XLA makes part of another kernel.
    """
    split = values.reshape(values.shape[0], groups, -1)
    size = split.shape[-1]
    mean = sum(split[..., channel] for channel in range(size)) / size  # [B, G]
    return jnp.stack([mean] * size, axis=-1).reshape(values.shape)


def _sum(terms: list[jax.Array], axes: tuple[int, ...]) -> tuple[jax.Array, ...]:
    """Sums of arrays of one shape, by one kernel that reads each number once."""
    zeros = [jnp.zeros((), jnp.float32)] * len(terms)
    add = functools.partial(jax.tree.map, jnp.add)
    return tuple(jax.lax.reduce(list(terms), zeros, add, axes))


def _row(values: jax.Array, x: jax.Array) -> jax.Array:
    """`[B, C]` or `[C]` in float32, shaped for sums with `x` `[B, ..., C]`."""
    values = values.astype(jnp.float32)
    return values.reshape(*values.shape[:-1], *[1] * (x.ndim - 2), values.shape[-1])


def _masked(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    return x if mask is None else jnp.where(mask, x, 0)

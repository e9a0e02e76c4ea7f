"""Winograd's minimal filtering for 3 × 3 convolutions on a CPU, strip after strip."""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

# Outputs of a tile along each axis: 36 products instead of 144. Larger ones lose digits.
_TILE = 4
_TAPS = 3
# Of the transformed inputs or products of a strip. Smaller ones leave too little for two cores:
# with 8 MB, layers took 1.1 to 4 times as long.
_STRIP_BYTES = 25e6
# Below, a layer gains less in all that a process does with it than its compilation costs.
_LEAST_OPERATIONS = 8e9
# Below, transforms cost more than multiplications save.
_LEAST_CHANNELS = 64


def pays(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether `convolve` is the faster way for `x` `[B, ..., C]` and `kernel` `[..., C, K]`."""
    if kernel.shape[:-2] != (_TAPS, _TAPS) or x.shape[1] % _TILE:
        return False
    if x.dtype != jnp.float32 or kernel.dtype != jnp.float32:
        return False
    operations = 2 * math.prod(x.shape[:3]) * kernel.size
    return min(kernel.shape[-2:]) >= _LEAST_CHANNELS and operations >= _LEAST_OPERATIONS


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    prepare: Callable[[jax.Array], jax.Array] = lambda rows: rows,
    precision: jax.lax.PrecisionLike = None,
) -> jax.Array:
    """A 3 × 3 convolution padded by 1 on each side, in a quarter of the multiplications.

    Lavin & Gray 2015, F(4 × 4, 3 × 3) with the points 0, ±1, 1/2 and -2. Its rounding errors are
    6 to 10 times those of the plain one, 1e-6 of the output; what is not finite spoils its tile. A
    strip of frequencies is prepared, transformed, multiplied and transformed back before the next.

    Args:
      x: `[B, F, T, C]`, float32, F a multiple of 4.
      kernel: `[3, 3, C, K]`, float32.
      prepare: what is convolved, given rows `[B, R, T, C]` of `x`.
      precision: of the products, as in `jax.lax`.

    Returns:
      `[B, F, T, K]`.
    """
    batch, bins, frames, channels = x.shape
    outputs = kernel.shape[-1]
    _, to_kernel, _ = _matrices()
    weights = jnp.einsum('ih,jk,hkco->jico', to_kernel, to_kernel, kernel, precision='highest')
    size = _strip_bins(bins, batch * frames, max(channels, outputs))
    # Where an output takes no more room than its input, it takes its place, unless something else
    # needs the input: then XLA copies it.
    in_place = channels == outputs

    def convolve_strip(
        index: jax.Array, carry: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        y, previous = carry
        start = index * size

        def rows(first: jax.Array, count: int) -> jax.Array:
            """Prepared, zeros where there are none."""
            part = jax.lax.dynamic_slice_in_dim(y if in_place else x, first, count, axis=1)
            return _pad_time(jnp.where(first < bins, prepare(part), 0))

        above = jnp.where(start > 0, previous[:, -2:-1], 0)
        padded = jnp.concatenate([above, rows(start, size), rows(start + size, 1)], axis=1)
        strip = _convolve_padded(padded, weights, precision)[:, :, :frames]
        # The strip is handed on whole: its last row alone XLA would prepare once more, and for
        # that copy all of y in each turn.
        return jax.lax.dynamic_update_slice_in_dim(y, strip, start, axis=1), padded

    y = x if in_place else jnp.zeros_like(x, shape=(batch, bins, frames, outputs))
    previous = _pad_time(jnp.zeros_like(x, shape=(batch, size + 2, frames, channels)))
    return jax.lax.fori_loop(0, bins // size, convolve_strip, (y, previous))[0]


def _strip_bins(bins: int, frames: int, channels: int) -> int:
    """The most that divide `bins` and keep a strip within its bytes; a tile's at least."""
    tiles = -(-frames // _TILE) / _TILE
    per_bin = 4 * channels * (_TILE + _TAPS - 1) ** 2 * tiles
    fitting = [
        size
        for size in range(_TILE, bins + 1, _TILE)
        if bins % size == 0 and size * per_bin <= _STRIP_BYTES
    ]
    return max(fitting, default=_TILE)


def _pad_time(x: jax.Array) -> jax.Array:
    """A zero before, and after as many as the last tile reads."""
    after = -x.shape[2] % _TILE + _TILE - 1
    return jnp.pad(x, ((0, 0), (0, 0), (1, after), (0, 0)))


def _convolve_padded(
    x: jax.Array, weights: jax.Array, precision: jax.lax.PrecisionLike
) -> jax.Array:
    """Padded rows `[B, R + 2, T + 4, C]`, weights `[6, 6, C, K]`: `[B, R, T, K]`."""
    to_input, _, to_output = _matrices()
    x = jnp.pad(x, ((0, 0), (0, _TILE - _TAPS + 1), (0, 0), (0, 0)))
    x = _combine(to_input, _taps(x, 1), 0)  # [6, B, R/4, T + 4, C]
    x = _combine(to_input, _taps(x, 3), 0)  # [6, 6, B, R/4, T/4, C]
    sides, tiles, channels = weights.shape[:2], x.shape[2:5], x.shape[-1]
    products = jax.lax.dot_general(
        x.reshape(math.prod(sides), -1, channels),
        weights.reshape(math.prod(sides), channels, -1),
        (((2,), (1,)), ((0,), (0,))),
        precision=precision,
    ).reshape(*sides, *tiles, -1)  # [6, 6, B, R/4, T/4, K]
    y = _combine(to_output, products, 4)  # [6, B, R/4, T/4, 4, K]
    y = _combine(to_output, y, 2)  # [B, R/4, 4, T/4, 4, K]
    return y.reshape(tiles[0], tiles[1] * _TILE, tiles[2] * _TILE, -1)


def _taps(x: jax.Array, axis: int) -> list[jax.Array]:
    """For each place in a tile along an axis, its values over all tiles; neighbours share two."""
    tiles = x.shape[axis] // _TILE - 1
    split = x.reshape(*x.shape[:axis], tiles + 1, _TILE, *x.shape[axis + 1 :])

    def tap(entry: int) -> jax.Array:
        first = entry // _TILE
        part = jax.lax.slice_in_dim(split, first, first + tiles, axis=axis)
        return jax.lax.index_in_dim(part, entry % _TILE, axis + 1, keepdims=False)

    return [tap(entry) for entry in range(_TILE + _TAPS - 1)]


def _combine(matrix: np.ndarray, arrays: Sequence[jax.Array], axis: int) -> jax.Array:
    """The sums of `arrays` that the rows of the matrix ask for, on a new axis."""

    def combine(row: np.ndarray) -> jax.Array:
        terms = [value * array for value, array in zip(row, arrays, strict=True) if value]
        return functools.reduce(jnp.add, terms)

    return jnp.stack([combine(row) for row in matrix], axis)


@functools.cache
def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """To the transformed input, to the transformed kernel, and from the products to the outputs.

    Toom and Cook's construction: polynomials are multiplied by their values at points, of which
    the last is at infinity.
    """
    points = [0.0, 1.0, -1.0, 0.5, -2.0]
    others = [[other for other in points if other != point] for point in points]
    scales = [
        math.prod(point - other for other in rest)
        for point, rest in zip(points, others, strict=True)
    ]
    size = len(points) + 1
    to_output = np.vander(points, _TILE, increasing=True).T
    to_kernel = np.vander(points, _TAPS, increasing=True) / np.array(scales)[:, None]
    to_input = [np.poly(rest)[::-1] for rest in (*others, points)]
    return (
        np.array([np.pad(row, (0, size - len(row))) for row in to_input], np.float32),
        np.concatenate([to_kernel, np.eye(_TAPS)[-1:]]).astype(np.float32),
        np.concatenate([to_output, np.eye(_TILE)[:, -1:]], axis=1).astype(np.float32),
    )

"""The linear maps of Winograd's F(4 × 4, 3 × 3), and their transposes.

Lavin & Gray 2015, with the points 0, ±1, 1/2 and -2. A tile is 6 inputs by 6, which give 4 outputs
by 4; neighbours share two inputs. Transformed, it has 36 numbers.
"""

import functools
import itertools
import math
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

# Outputs of a tile along each axis: 36 products instead of 144. Larger ones lose digits.
OUTPUTS = 4
TAPS = 3
INPUTS = OUTPUTS + TAPS - 1

# Three groups of two along frequency, each six arrays `[2, tiles, channels]` along time: XLA runs
# operations on a CPU side by side if more than eight are ready, and 18 products of these are.
Transformed = list[list[jax.Array]]
_GROUP = 2


@jax.jit
def transform_inputs(x: jax.Array) -> Transformed:
    """Transforms padded rows `[B, 4·R + 2, 4·N + 2, C]`, R·N tiles each."""
    to_input, _, _ = _matrices()
    along_frequency = _combine(to_input, _overlapping(x, 1))  # six of [B, R, 4·N + 2, C]
    return [
        _flattened(_combine(to_input, _overlapping(group, 3)))
        for group in _stacked(along_frequency)
    ]


@functools.partial(jax.jit, static_argnames='shape')
def transpose_of_inputs(gradient: Transformed, shape: tuple[int, ...]) -> jax.Array:
    """Gradient of `transform_inputs`, with two zeros after each axis.

    Args:
      gradient: of the transformed inputs.
      shape: of the padded rows.

    Returns:
      `[B, 4·R + 4, 4·N + 4, C]`.
    """
    to_input, _, _ = _matrices()
    batch, rows, frames, channels = shape
    tiles = (-1, batch, rows // OUTPUTS, frames // OUTPUTS, channels)
    along_frequency = [
        _add_overlapping(_combine(to_input.T, [part.reshape(tiles) for part in group]), 3)
        for group in gradient
    ]  # [2, B, R, 4·N + 4, C] each
    return _add_overlapping(_combine(to_input.T, itertools.chain(*along_frequency)), 1)


@jax.jit
def transform_kernel(kernel: jax.Array) -> Transformed:
    """Transforms `[3, 3, C, K]` to arrays `[2, C, K]`."""
    _, to_kernel, _ = _matrices()
    along_frequency = _combine(to_kernel, kernel)  # six of [3, C, K]
    return [_combine(to_kernel, group.swapaxes(0, 1)) for group in _stacked(along_frequency)]


@jax.jit
def transpose_of_kernel(gradient: Transformed) -> jax.Array:
    """Gradient of `transform_kernel`, `[3, 3, C, K]`."""
    _, to_kernel, _ = _matrices()
    along_frequency = [jnp.stack(_combine(to_kernel.T, group), axis=1) for group in gradient]
    return jnp.stack(_combine(to_kernel.T, itertools.chain(*along_frequency)))


@functools.partial(jax.jit, static_argnames='shape')
def transform_outputs(products: Transformed, shape: tuple[int, ...]) -> jax.Array:
    """Transforms products of tiles to outputs of the given shape, `[B, 4·R, 4·N, K]`."""
    _, _, to_output = _matrices()
    batch, rows, frames, channels = shape
    tiles = (-1, batch, rows // OUTPUTS, frames // OUTPUTS, channels)
    along_frequency = [
        jnp.stack(_combine(to_output, [part.reshape(tiles) for part in group]), axis=4)
        for group in products
    ]  # [2, B, R, N, 4, K] each
    y = jnp.stack(_combine(to_output, itertools.chain(*along_frequency)), axis=2)
    return y.reshape(shape)


@jax.jit
def transpose_of_outputs(gradient: jax.Array) -> Transformed:
    """Gradient of `transform_outputs`, given that of its outputs `[B, 4·R, 4·N, K]`."""
    _, _, to_output = _matrices()
    along_frequency = _combine(to_output.T, _split(gradient, 1))  # six of [B, R, 4·N, K]
    return [
        _flattened(_combine(to_output.T, _split(group, 3))) for group in _stacked(along_frequency)
    ]


def _stacked(along_frequency: Sequence[jax.Array]) -> list[jax.Array]:
    """Joins the six along frequency into groups."""
    starts = range(0, INPUTS, _GROUP)
    return [jnp.stack(along_frequency[start : start + _GROUP]) for start in starts]


def _flattened(parts: Sequence[jax.Array]) -> list[jax.Array]:
    """Reshapes `[2, B, R, N, C]` to `[2, B·R·N, C]`."""
    return [part.reshape(len(part), -1, part.shape[-1]) for part in parts]


def _split(x: jax.Array, axis: int) -> list[jax.Array]:
    """Values at each place in a row of 4."""
    split = x.reshape(*x.shape[:axis], -1, OUTPUTS, *x.shape[axis + 1 :])
    places = range(OUTPUTS)
    return [jax.lax.index_in_dim(split, place, axis + 1, keepdims=False) for place in places]


def _overlapping(x: jax.Array, axis: int) -> list[jax.Array]:
    """Values of each of a tile's 6 inputs along an axis, over all tiles."""
    last = x.shape[axis] - INPUTS + 1
    return [jax.lax.slice_in_dim(x, place, place + last, OUTPUTS, axis) for place in range(INPUTS)]


def _add_overlapping(inputs: Sequence[jax.Array], axis: int) -> jax.Array:
    """Transpose of `_overlapping`: adds up the inputs that tiles share."""

    def pad(values: jax.Array, before: int) -> jax.Array:
        pads = [(0, 0)] * values.ndim
        pads[axis] = (before, 1 - before)
        return jnp.pad(values, pads)

    places = [pad(values, 0) for values in inputs[:OUTPUTS]]
    for place, values in enumerate(inputs[OUTPUTS:]):
        places[place] += pad(values, 1)
    joined = jnp.stack(places, axis + 1)
    return joined.reshape(*joined.shape[:axis], -1, *joined.shape[axis + 2 :])


def _combine(matrix: np.ndarray, arrays: Iterable[jax.Array]) -> list[jax.Array]:
    """Sums of `arrays`, weighted by each row of the matrix."""
    arrays = list(arrays)

    def combine(row: np.ndarray) -> jax.Array:
        terms = [value * array for value, array in zip(row, arrays, strict=True) if value]
        return functools.reduce(jnp.add, terms)

    return [combine(row) for row in matrix]


@functools.cache
def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrices that transform inputs, kernel and products.

    Toom and Cook's construction: polynomials are multiplied by their values at points, of which
    the last is at infinity.
    """
    points = [0.0, 1.0, -1.0, 0.5, -2.0]
    others = [[other for other in points if other != point] for point in points]
    scales = [
        math.prod(point - other for other in rest)
        for point, rest in zip(points, others, strict=True)
    ]
    to_output = np.vander(points, OUTPUTS, increasing=True).T
    to_kernel = np.vander(points, TAPS, increasing=True) / np.array(scales)[:, None]
    to_input = [np.poly(rest)[::-1] for rest in (*others, points)]
    return (
        np.array([np.pad(row, (0, INPUTS - len(row))) for row in to_input], np.float32),
        np.concatenate([to_kernel, np.eye(TAPS)[-1:]]).astype(np.float32),
        np.concatenate([to_output, np.eye(OUTPUTS)[:, -1:]], axis=1).astype(np.float32),
    )

"""The linear maps of Winograd's F(4 × 4, 3 × 3), and their transposes.

Lavin & Gray 2015, with the points 0, ±1, 1/2 and -2. A tile is 6 inputs by 6, which give 4 outputs
by 4; neighbours share two inputs. Transformed, its 36 numbers come first, those along time before
those along frequency.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

# Outputs of a tile along each axis: 36 products instead of 144. Larger ones lose digits.
OUTPUTS = 4
TAPS = 3
INPUTS = OUTPUTS + TAPS - 1


@jax.jit
def transform_inputs(x: jax.Array) -> jax.Array:
    """Padded rows `[B, 4·R + 4, 4·N + 4, C]`, of which the last two go unread: `[36, B·R·N, C]`."""
    to_input, _, _ = _matrices()
    x = jnp.stack(_combine(to_input, _overlapping(x, 1)))  # [6, B, R, 4·N + 4, C]
    x = jnp.stack(_combine(to_input, _overlapping(x, 3)))  # [6, 6, B, R, N, C]
    return x.reshape(INPUTS**2, -1, x.shape[-1])


@functools.partial(jax.jit, static_argnames='shape')
def transpose_of_inputs(gradient: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """What `transform_inputs` pulls `[36, B·R·N, C]` back to; `shape` is that of its input."""
    to_input, _, _ = _matrices()
    batch, rows, frames, channels = shape
    tiles = rows // OUTPUTS - 1, frames // OUTPUTS - 1
    gradient = gradient.reshape(INPUTS, INPUTS, batch, *tiles, channels)
    gradient = _add_overlapping(_combine(to_input.T, gradient), 3)  # [6, B, R, 4·N + 4, C]
    return _add_overlapping(_combine(to_input.T, gradient), 1)


@jax.jit
def transform_kernel(kernel: jax.Array) -> jax.Array:
    """`[3, 3, C, K]` to `[36, C, K]`."""
    _, to_kernel, _ = _matrices()
    kernel = jnp.stack(_combine(to_kernel, kernel), axis=1)  # [3, 6, C, K]
    kernel = jnp.stack(_combine(to_kernel, kernel))  # [6, 6, C, K]
    return kernel.reshape(-1, *kernel.shape[2:])


@jax.jit
def transpose_of_kernel(gradient: jax.Array) -> jax.Array:
    """What `transform_kernel` pulls `[36, C, K]` back to."""
    _, to_kernel, _ = _matrices()
    gradient = gradient.reshape(INPUTS, INPUTS, *gradient.shape[1:])
    gradient = jnp.stack(_combine(to_kernel.T, gradient), axis=1)  # [6, 3, C, K]
    return jnp.stack(_combine(to_kernel.T, gradient))


@functools.partial(jax.jit, static_argnames='shape')
def transform_outputs(products: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Products `[36, B·R·N, K]` to outputs of the given shape, `[B, 4·R, 4·N, K]`."""
    _, _, to_output = _matrices()
    batch, rows, frames, channels = shape
    tiles = rows // OUTPUTS, frames // OUTPUTS
    products = products.reshape(INPUTS, INPUTS, batch, *tiles, channels)
    y = jnp.stack(_combine(to_output, products), axis=4)  # [6, B, R, N, 4, K]
    y = jnp.stack(_combine(to_output, y), axis=2)  # [B, R, 4, N, 4, K]
    return y.reshape(shape)


@jax.jit
def transpose_of_outputs(gradient: jax.Array) -> jax.Array:
    """What `transform_outputs` pulls `[B, 4·R, 4·N, K]` back to."""
    _, _, to_output = _matrices()
    gradient = jnp.stack(_combine(to_output.T, _split(gradient, 1)))  # [6, B, R, 4·N, K]
    gradient = jnp.stack(_combine(to_output.T, _split(gradient, 3)))  # [6, 6, B, R, N, K]
    return gradient.reshape(INPUTS**2, -1, gradient.shape[-1])


def _split(x: jax.Array, axis: int) -> list[jax.Array]:
    """For each place in a row of 4, its values."""
    split = x.reshape(*x.shape[:axis], -1, OUTPUTS, *x.shape[axis + 1 :])
    places = range(OUTPUTS)
    return [jax.lax.index_in_dim(split, place, axis + 1, keepdims=False) for place in places]


def _overlapping(x: jax.Array, axis: int) -> list[jax.Array]:
    """For each of a tile's 6 inputs along an axis, its values over all tiles."""
    places = _split(x, axis)
    tiles = places[0].shape[axis] - 1
    own = [jax.lax.slice_in_dim(place, 0, tiles, axis=axis) for place in places]
    shared = [jax.lax.slice_in_dim(place, 1, None, axis=axis) for place in places]
    return own + shared[: INPUTS - OUTPUTS]


def _add_overlapping(inputs: Sequence[jax.Array], axis: int) -> jax.Array:
    """The transpose of `_overlapping`: inputs that tiles share are summed."""

    def pad(values: jax.Array, before: int) -> jax.Array:
        pads = [(0, 0)] * values.ndim
        pads[axis] = (before, 1 - before)
        return jnp.pad(values, pads)

    places = [pad(values, 0) for values in inputs[:OUTPUTS]]
    for place, values in enumerate(inputs[OUTPUTS:]):
        places[place] += pad(values, 1)
    joined = jnp.stack(places, axis + 1)
    return joined.reshape(*joined.shape[:axis], -1, *joined.shape[axis + 2 :])


def _combine(matrix: np.ndarray, arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """The sums of `arrays` that the rows of the matrix ask for."""

    def combine(row: np.ndarray) -> jax.Array:
        terms = [value * array for value, array in zip(row, arrays, strict=True) if value]
        return functools.reduce(jnp.add, terms)

    return [combine(row) for row in matrix]


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
    to_output = np.vander(points, OUTPUTS, increasing=True).T
    to_kernel = np.vander(points, TAPS, increasing=True) / np.array(scales)[:, None]
    to_input = [np.poly(rest)[::-1] for rest in (*others, points)]
    return (
        np.array([np.pad(row, (0, INPUTS - len(row))) for row in to_input], np.float32),
        np.concatenate([to_kernel, np.eye(TAPS)[-1:]]).astype(np.float32),
        np.concatenate([to_output, np.eye(OUTPUTS)[:, -1:]], axis=1).astype(np.float32),
    )

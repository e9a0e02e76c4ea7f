"""A convolution of its normalised and activated input, as one operation."""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp

from m2l_jax.model import strided, winograd
from m2l_jax.model.convolution import convolve
from m2l_jax.model.masks import mask_time


class Way(NamedTuple):
    """How something is activated and convolved.

    Attributes:
      strides: one a spatial axis.
      pads: (before, after) of each.
      activation: None for the identity.
      precision: of the products, as in `jax.lax`.
    """

    strides: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    activation: Callable[[jax.Array], jax.Array] | None = jax.nn.silu
    precision: jax.lax.PrecisionLike = None


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def convolve_normalised(
    x: jax.Array,
    gain: jax.Array,
    offset: jax.Array,
    kernel: jax.Array,
    lengths: jax.Array | None,
    way: Way,
) -> jax.Array:
    """The convolution of activation(x·gain + offset), on a CPU in strips where they pay.

    Args:
      x: `[B, ..., C]`.
      gain: `[B, 1…, C]`, float32, as `offset`.
      offset: `[B, 1…, C]`.
      kernel: `[..., C, K]`.
      lengths: `[B]`, how many frames of each row count; zeros take the others' place. None: all.
      way: strides, padding, activation and precision.

    Returns:
      `[B, ..., K]`.
    """
    return _convolve(x, gain, offset, kernel, lengths, way)


def _convolve(x, gain, offset, kernel, lengths, way):
    plain = functools.partial(_activate_and_convolve, way=way)
    algorithm = _in_strips(x, kernel, way)
    if algorithm is None:
        return plain(x, gain, offset, kernel, lengths)

    def strips(x, gain, offset, kernel, lengths):
        def prepare(rows: jax.Array) -> jax.Array:
            return _activate(rows, gain, offset, lengths, way)

        return algorithm.convolve(x, kernel, prepare, way.precision)

    return jax.lax.platform_dependent(x, gain, offset, kernel, lengths, cpu=strips, default=plain)


def _in_strips(x: jax.Array, kernel: jax.Array, way: Way) -> ModuleType | None:
    """What convolves in strips on a CPU, if that pays."""
    algorithms = (winograd, strided)
    return next((a for a in algorithms if a.pays(x, kernel, way.strides, way.pads)), None)


def _forward(x, gain, offset, kernel, lengths, way):
    # The very value that is computed without a gradient: a student is compared with its teacher.
    value = _convolve(x, gain, offset, kernel, lengths, way)
    if _in_strips(x, kernel, way):
        pull_back = functools.partial(_pull_back, way=way)
        return value, jax.tree_util.Partial(pull_back, x, gain, offset, kernel, lengths)
    plain = functools.partial(_activate_and_convolve, lengths=lengths, way=way)
    return value, jax.vjp(plain, x, gain, offset, kernel)[1]


def _backward(way, pull_back, gradient):
    del way
    return *pull_back(gradient), None


def _pull_back(x, gain, offset, kernel, lengths, gradient, *, way):
    """Gradients of what may go in strips, with all between its inputs and outputs computed anew."""

    def whole(x, gain, offset, kernel, lengths, gradient):
        function = functools.partial(_activate_and_convolve, lengths=lengths, way=way)
        return jax.vjp(function, x, gain, offset, kernel)[1](gradient)

    def strips(x, gain, offset, kernel, lengths, gradient):
        activate = functools.partial(_activate, lengths=lengths, way=way)
        of_activated, of_kernel = winograd.pull_back(
            x, kernel, gradient, lambda rows: activate(rows, gain, offset), way.precision
        )
        return *jax.vjp(activate, x, gain, offset)[1](of_activated), of_kernel

    arrays = (x, gain, offset, kernel, lengths, gradient)
    if _in_strips(x, kernel, way) is not winograd:
        return whole(*arrays)
    return jax.lax.platform_dependent(*arrays, cpu=strips, default=whole)


convolve_normalised.defvjp(_forward, _backward)


def _activate_and_convolve(x, gain, offset, kernel, lengths, way):
    activated = _activate(x, gain, offset, lengths, way)
    return convolve(activated, kernel, way.strides, way.pads, precision=way.precision)


def _activate(
    x: jax.Array, gain: jax.Array, offset: jax.Array, lengths: jax.Array | None, way: Way
) -> jax.Array:
    activated = (x.astype(jnp.float32) * gain + offset).astype(x.dtype)
    if way.activation:
        activated = way.activation(activated)
    return mask_time(activated, lengths)

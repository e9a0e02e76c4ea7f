"""A convolution of its normalised and activated input, as one operation."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from m2l_jax.model import strided, winograd
from m2l_jax.model.convolution import convolve
from m2l_jax.model.masks import mask_time

Activation = Callable[[jax.Array], jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7, 8))
def convolve_normalised(
    x: jax.Array,
    gain: jax.Array,
    offset: jax.Array,
    kernel: jax.Array,
    lengths: jax.Array | None,
    strides: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
    activation: Activation | None = jax.nn.silu,
    precision: jax.lax.PrecisionLike = None,
) -> jax.Array:
    """The convolution of activation(x·gain + offset), on a CPU in strips where they pay.

    Args:
      x: `[B, ..., C]`.
      gain: `[B, 1…, C]`, float32, as `offset`.
      offset: `[B, 1…, C]`.
      kernel: `[..., C, K]`.
      lengths: `[B]`, how many frames of each row count; zeros take the others' place. None: all.
      strides: one a spatial axis.
      pads: (before, after) of each.
      activation: None for the identity.
      precision: of the products, as in `jax.lax`.

    Returns:
      `[B, ..., K]`.
    """
    return _convolve(x, gain, offset, kernel, lengths, strides, pads, activation, precision)


def _convolve(x, gain, offset, kernel, lengths, strides, pads, activation, precision):
    plain = functools.partial(
        _activate_and_convolve,
        strides=strides,
        pads=pads,
        activation=activation,
        precision=precision,
    )
    if winograd.pays(x, kernel, strides, pads):
        algorithm = winograd.convolve
    elif strided.pays(x, kernel, strides, pads):
        algorithm = strided.convolve
    else:
        return plain(x, gain, offset, kernel, lengths)

    def strips(x, gain, offset, kernel, lengths):
        def prepare(rows: jax.Array) -> jax.Array:
            return _activate(rows, gain, offset, lengths, activation)

        return algorithm(x, kernel, prepare, precision)

    return jax.lax.platform_dependent(x, gain, offset, kernel, lengths, cpu=strips, default=plain)


def _forward(x, gain, offset, kernel, lengths, strides, pads, activation, precision):
    # The very value that is computed without a gradient: a student is compared with its teacher.
    value = _convolve(x, gain, offset, kernel, lengths, strides, pads, activation, precision)
    plain = functools.partial(
        _activate_and_convolve,
        strides=strides,
        pads=pads,
        activation=activation,
        precision=precision,
    )
    if winograd.pays(x, kernel, strides, pads):
        pull_back = functools.partial(
            _pull_back, plain=plain, activation=activation, precision=precision
        )
        return value, jax.tree_util.Partial(pull_back, x, gain, offset, kernel, lengths)
    return value, jax.vjp(functools.partial(plain, lengths=lengths), x, gain, offset, kernel)[1]


def _backward(strides, pads, activation, precision, pull_back, gradient):
    del strides, pads, activation, precision
    return *pull_back(gradient), None


def _pull_back(x, gain, offset, kernel, lengths, gradient, *, plain, activation, precision):
    """Gradients of what may go in strips, with all between its inputs and outputs computed anew."""

    def whole(x, gain, offset, kernel, lengths, gradient):
        function = functools.partial(plain, lengths=lengths)
        return jax.vjp(function, x, gain, offset, kernel)[1](gradient)

    def strips(x, gain, offset, kernel, lengths, gradient):
        activate = functools.partial(_activate, lengths=lengths, activation=activation)
        of_activated, of_kernel = winograd.pull_back(
            x, kernel, gradient, lambda rows: activate(rows, gain, offset), precision
        )
        return *jax.vjp(activate, x, gain, offset)[1](of_activated), of_kernel

    arrays = (x, gain, offset, kernel, lengths, gradient)
    return jax.lax.platform_dependent(*arrays, cpu=strips, default=whole)


convolve_normalised.defvjp(_forward, _backward)


def _activate_and_convolve(x, gain, offset, kernel, lengths, strides, pads, activation, precision):
    activated = _activate(x, gain, offset, lengths, activation)
    return convolve(activated, kernel, strides, pads, precision=precision)


def _activate(
    x: jax.Array,
    gain: jax.Array,
    offset: jax.Array,
    lengths: jax.Array | None,
    activation: Activation | None,
) -> jax.Array:
    normalised = (x.astype(jnp.float32) * gain + offset).astype(x.dtype)
    return mask_time(activation(normalised) if activation else normalised, lengths)

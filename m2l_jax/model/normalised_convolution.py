"""A convolution of what group normalisation and SiLU make of its input, as one operation."""

import functools

import jax
import jax.numpy as jnp

from m2l_jax.model import winograd
from m2l_jax.model.convolution import Pads, convolve
from m2l_jax.model.masks import mask_time


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def convolve_normalised(
    x: jax.Array,
    gain: jax.Array,
    offset: jax.Array,
    kernel: jax.Array,
    lengths: jax.Array | None,
    pads: Pads,
    precision: jax.lax.PrecisionLike = None,
) -> jax.Array:
    """The convolution of silu(x·gain + offset), on a CPU in strips where they pay.

    Args:
      x: `[B, ..., C]`.
      gain: `[B, 1…, C]`, float32, as `offset`.
      offset: `[B, 1…, C]`.
      kernel: `[..., C, K]`.
      lengths: `[B]`, how many frames of each row count; zeros take the others' place. None: all.
      pads: (before, after) of each spatial axis.
      precision: of the products, as in `jax.lax`.

    Returns:
      `[B, ..., K]`.
    """
    return _convolve(x, gain, offset, kernel, lengths, pads, precision)


def _convolve(x, gain, offset, kernel, lengths, pads, precision):
    plain = functools.partial(_activate_and_convolve, pads=pads, precision=precision)
    if not _in_strips(x, kernel, pads):
        return plain(x, gain, offset, kernel, lengths)
    strips = functools.partial(_convolve_strips, precision=precision)
    return jax.lax.platform_dependent(x, gain, offset, kernel, lengths, cpu=strips, default=plain)


def _in_strips(x: jax.Array, kernel: jax.Array, pads: Pads) -> bool:
    return pads == ((1, 1), (1, 1)) and winograd.pays(x, kernel)


def _forward(x, gain, offset, kernel, lengths, pads, precision):
    # The very value that is computed without a gradient: a student is compared with its teacher.
    value = _convolve(x, gain, offset, kernel, lengths, pads, precision)
    if _in_strips(x, kernel, pads):
        pull_back = functools.partial(_pull_back, pads=pads, precision=precision)
        return value, jax.tree_util.Partial(pull_back, x, gain, offset, kernel, lengths)
    plain = functools.partial(
        _activate_and_convolve, lengths=lengths, pads=pads, precision=precision
    )
    return value, jax.vjp(plain, x, gain, offset, kernel)[1]


def _backward(pads, precision, pull_back, gradient):
    del pads, precision
    return *pull_back(gradient), None


def _pull_back(x, gain, offset, kernel, lengths, gradient, *, pads, precision):
    """Gradients of what may go in strips, with all between its inputs and outputs computed anew."""

    def plain(x, gain, offset, kernel, lengths, gradient):
        function = functools.partial(
            _activate_and_convolve, lengths=lengths, pads=pads, precision=precision
        )
        return jax.vjp(function, x, gain, offset, kernel)[1](gradient)

    def strips(x, gain, offset, kernel, lengths, gradient):
        activate = functools.partial(_activate, lengths=lengths)
        activated, pull_activation_back = jax.vjp(activate, x, gain, offset)
        of_activated, of_kernel = winograd.pull_back(activated, kernel, gradient, precision)
        return *pull_activation_back(of_activated), of_kernel

    arrays = (x, gain, offset, kernel, lengths, gradient)
    return jax.lax.platform_dependent(*arrays, cpu=strips, default=plain)


convolve_normalised.defvjp(_forward, _backward)


def _activate_and_convolve(x, gain, offset, kernel, lengths, pads, precision):
    return convolve(
        _activate(x, gain, offset, lengths), kernel, (1,) * len(pads), pads, precision=precision
    )


def _convolve_strips(x, gain, offset, kernel, lengths, precision):
    def activate(rows: jax.Array) -> jax.Array:
        return _activate(rows, gain, offset, lengths)

    return winograd.convolve(x, kernel, activate, precision)


def _activate(
    x: jax.Array, gain: jax.Array, offset: jax.Array, lengths: jax.Array | None
) -> jax.Array:
    normalised = (x.astype(jnp.float32) * gain + offset).astype(x.dtype)
    return mask_time(jax.nn.silu(normalised), lengths)

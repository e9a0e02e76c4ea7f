"""Convolutions for CPUs, and their gradients. Only reverse-mode differentiation is defined."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from m2l_jax.cpu_kernels import patches, strided, winograd
from m2l_jax.cpu_kernels.strips import Prepare, find_patches, late_zero

_LAYOUTS = {3: ('NHC', 'HIO', 'NHC'), 4: ('NHWC', 'HWIO', 'NHWC')}
Pads = tuple[tuple[int, int], ...]


def convolve_prepared(
    prepare: Callable[..., jax.Array],
    operands: tuple[Any, ...],
    x: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, ...],
    pads: Pads,
    products: str = 'float32',
) -> jax.Array:
    """Convolution of `prepare(x, *operands)`, in strips of frequency where that is faster.

    Args:
      prepare: maps rows `[B, R, T, C]` of `x`, each by itself, to what is convolved.
      operands: the other arguments of `prepare`, as pytrees of arrays.
      x: `[B, ..., C]`.
      kernel: `[..., C, K]`.
      strides: one for each spatial axis.
      pads: (before, after) for each spatial axis.
      products: 'bfloat16' rounds the operands of products to it where that is faster; gradients
        are as in 'float32'.

    Returns:
      `[B, ..., K]`.
    """
    algorithm = _algorithm(x, kernel, strides, pads, products)
    if algorithm is None:
        return convolve(prepare(x, *operands), kernel, strides, pads)
    return _convolve_in_strips(algorithm, prepare, strides, pads, x, kernel, operands)


def _algorithm(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], pads: Pads, products: str
) -> Callable[[jax.Array, jax.Array, Prepare], jax.Array] | None:
    """The fastest convolution of `prepare(x)` in strips, given x, kernel and prepare."""
    if winograd.pays(x, kernel, strides, pads):
        return winograd.convolve  # in float32: its transforms lose the few digits of bfloat16
    if products == 'bfloat16':
        takes = patches.pays(x, kernel, strides)
        return functools.partial(patches.convolve, strides=strides, pads=pads) if takes else None
    return strided.convolve if strided.pays(x, kernel, strides, pads) else None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _convolve_in_strips(
    algorithm: Callable[[jax.Array, jax.Array, Prepare], jax.Array],
    prepare: Callable[..., jax.Array],
    strides: tuple[int, ...],
    pads: Pads,
    x: jax.Array,
    kernel: jax.Array,
    operands: tuple[Any, ...],
) -> jax.Array:
    return algorithm(x, kernel, lambda rows: prepare(rows, *operands))


def _strips_forward(algorithm, prepare, strides, pads, *arrays):
    return _convolve_in_strips(algorithm, prepare, strides, pads, *arrays), arrays


def _strips_backward(algorithm, prepare, strides, pads, arrays, gradient):
    """Gradients for which everything between inputs and outputs is computed again."""
    x, kernel, operands = arrays
    if algorithm is winograd.convolve:
        of_prepared, of_kernel = winograd.pull_back(
            x, kernel, gradient, lambda rows: prepare(rows, *operands)
        )
        of_x, *of_operands = jax.vjp(prepare, x, *operands)[1](of_prepared)
        return of_x, of_kernel, tuple(of_operands)

    def whole(x, kernel, operands):
        return convolve(prepare(x, *operands), kernel, strides, pads)

    return jax.vjp(whole, x, kernel, operands)[1](gradient)


_convolve_in_strips.defvjp(_strips_forward, _strips_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], pads: Pads) -> jax.Array:
    """Convolution of the whole `x` `[B, ..., C]` with `kernel` `[..., C, K]`: `[B, ..., K]`.

    A kernel of one entry becomes a matrix product, 1 to 4.5 times as fast, and gradients become
    products wherever XLA's own are slow.
    """
    function = _product if _is_product(kernel, strides, pads) else _plain(strides, pads)
    return function(x, kernel)


def _plain(strides: tuple[int, ...], pads: Pads) -> Callable[..., jax.Array]:
    return lambda x, kernel: jax.lax.conv_general_dilated(
        x, kernel, strides, pads, dimension_numbers=_LAYOUTS[x.ndim]
    )


def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.matmul(x, kernel.reshape(kernel.shape[-2:]))


def _is_product(kernel: jax.Array, strides: Sequence[int], pads: Pads) -> bool:
    everywhere = max(strides) == 1 and not any(itertools.chain(*pads))
    return math.prod(kernel.shape[:-2]) == 1 and everywhere


def _forward(x, kernel, strides, pads):
    return convolve(x, kernel, strides, pads), (x, kernel)


def _backward(strides, pads, saved, gradient):
    x, kernel = saved
    plain = _plain(strides, pads)
    if _is_even(kernel, strides):
        of_x = _inputs_gradient(kernel, gradient, x.shape, pads)
    else:
        function = _product if _is_product(kernel, strides, pads) else plain
        (of_x,) = jax.linear_transpose(lambda x: function(x, kernel), x)(gradient)
    if _has_fast_kernel_gradient(kernel, strides):
        (of_kernel,) = jax.linear_transpose(lambda kernel: plain(x, kernel), kernel)(gradient)
    else:
        of_kernel = _kernel_gradient(x, gradient, kernel.shape, strides, pads)
    return of_x, of_kernel


convolve.defvjp(_forward, _backward)


def _has_fast_kernel_gradient(kernel: jax.Array, strides: Sequence[int]) -> bool:
    """Selects kernels for which XLA's own gradient is as fast as matrix products.

    Measured at this model's sizes: XLA is 0.9 to 1.5 times as fast for 3 × 3 kernels to 64 or more
    channels. Products are 1.1 to 1.6 times as fast with strides, 3 to 5 times for 1 × 1, 24 times
    to two channels, and 50 to 200 times with an even side.
    """
    return kernel.shape[:-2] == (3, 3) and kernel.shape[-1] > 8 and max(strides) == 1


def _is_even(kernel: jax.Array, strides: Sequence[int]) -> bool:
    """Selects kernels for which products are faster than XLA's own gradient of the inputs.

    With an even side they are 1.3 to 3 times as fast, with odd ones 0.07 to 1.3 times.
    """
    return max(strides) == 1 and any(size % 2 == 0 for size in kernel.shape[:-2])


def _inputs_gradient(
    kernel: jax.Array, gradient: jax.Array, shape: Sequence[int], pads: Pads
) -> jax.Array:
    """Products of the gradient with each entry of the kernel, added where that entry was used."""

    def product(entry: Sequence[int]) -> jax.Array:
        product = jnp.matmul(gradient, kernel[entry].T)  # [B, ..., C]
        sides = zip(entry, shape[1:-1], gradient.shape[1:-1], pads, strict=True)
        before = [(index - pad, size - (index - pad) - n) for index, size, n, (pad, _) in sides]
        config = [(low, high, 0) for low, high in ((0, 0), *before, (0, 0))]
        return jax.lax.pad(product, jnp.zeros((), product.dtype), config)

    entries = itertools.product(*map(range, kernel.shape[:-2]))
    return sum(product(entry) for entry in entries)


def _kernel_gradient(
    x: jax.Array,
    gradient: jax.Array,
    shape: Sequence[int],
    strides: Sequence[int],
    pads: Pads,
) -> jax.Array:
    """Products of the gradient with each kernel entry's patch of the inputs, `[..., C, K]`.

    To fewer channels without strides, it is one product of the inputs with patches of the gradient,
    which takes much less memory.
    """
    *sides, inputs, outputs = shape
    zero = late_zero(gradient)
    if inputs > outputs and max(strides) == 1:
        # Where an entry meets x, its opposite one meets the gradient.
        pads = [
            (size - 1 - before, size - 1 - after)
            for size, (before, after) in zip(sides, pads, strict=True)
        ]
        patches = find_patches(gradient, zero, sides, strides, pads, x.shape[1:-1])
        joined = jnp.concatenate(patches, axis=-1)  # [N, entries·K]
        product = jnp.matmul(x.reshape(-1, inputs).T, joined)
        return product.reshape(inputs, -1, outputs).swapaxes(0, 1)[::-1].reshape(shape)
    patches = find_patches(x, zero, sides, strides, pads, gradient.shape[1:-1])
    flat = gradient.reshape(-1, outputs)
    return jnp.stack([jnp.matmul(patch.T, flat) for patch in patches]).reshape(shape)

"""The operation that the model's layers are made of: normalise, activate and convolve.

`kernels` chooses how it is computed. 'xla' allows every kind of differentiation. 'cpu' is faster
there; 'cpu_bfloat16' also rounds the operands of large products of float32 to bfloat16, and sums in
float32; 'gpu' takes less memory traffic and fewer kernels on NVIDIA's, from Ampere on. These have
gradients only, no `jax.jvp`. All give the same values but for rounding.

`lengths` `[B]` are the frames of each row that count, zeros taking the others' place; None for all.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from m2l_jax.cpu_kernels.convolution import convolve_prepared
from m2l_jax.cpu_kernels.processor import multiplies_bfloat16
from m2l_jax.cpu_kernels.statistics import sum_over_space
from m2l_jax.cpu_kernels.subpixel import convolve_repeated
from m2l_jax.gpu_kernels import normalisation
from m2l_jax.model.config import ModelConfig

KERNELS = ('xla', 'cpu', 'cpu_bfloat16', 'gpu')
_CPU = {'cpu': 'float32', 'cpu_bfloat16': 'bfloat16'}  # type of the operands of products
Activation = Callable[[jax.Array], jax.Array]
Affine = tuple[jax.Array, jax.Array]  # gain and offset, float32 `[B, 1…, C]`
Norm = tuple[jax.Array, jax.Array]  # scale and bias of a group normalisation, `[C]`
Lengths = jax.Array | None  # `[B]`

_LAYOUTS = {3: ('NHC', 'HIO', 'NHC'), 4: ('NHWC', 'HWIO', 'NHWC')}
_EPSILON = 1e-5


def kernels_for(device: jax.Device) -> str:
    """The fastest kernels for a device."""
    if device.platform == 'cpu':
        return 'cpu'
    capability = str(getattr(device, 'compute_capability', ''))  # '9.0'; 'gfx942' of AMD's
    return 'gpu' if re.fullmatch(r'([89]|\d\d)\.\d', capability) else 'xla'


def for_inference(config: ModelConfig, device: jax.Device) -> tuple[ModelConfig, str]:
    """The config and kernels to encode and decode with on a device.

    A CPU computes everything in float32, faster than in 16 bits; for bfloat16, with products of
    bfloat16 where the processor multiplies these faster.
    """
    kernels = kernels_for(device)
    if kernels != 'cpu':
        return config, kernels
    if config.dtype == 'bfloat16' and multiplies_bfloat16():
        kernels = 'cpu_bfloat16'
    return dataclasses.replace(config, dtype='float32'), kernels


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    norm: Norm | None = None,
    activation: Activation | None = None,
    lengths: Lengths = None,
    *,
    shift: jax.Array | None = None,
    strides: tuple[int, ...] | None = None,
    repeats: tuple[int, int] | None = None,
    kernels: str = 'xla',
) -> jax.Array:
    """Convolution of activation(norm(x + shift)), padded by half the kernel on *both* sides.

    ('SAME' would pad an even-sized input of a strided convolution on one side only.)

    Args:
      x: `[B, ..., T, C]`; the result is `[B, ..., T', K]`.
      kernel: `[..., C, K]`.
      norm: None for the identity.
      activation: None for the identity.
      lengths, kernels: see above.
      shift: `[B, C]`; None for 0.
      strides: one for each spatial axis; None for 1.
      repeats: times that each entry is repeated along frequency and time before it is convolved,
        1 or even; None for once.
    """
    strides = strides or (1,) * (x.ndim - 2)
    pads = tuple((size // 2, size // 2) for size in kernel.shape[:-2])
    if kernels in _CPU:
        products = _CPU[kernels]
        x = _shifted(x, shift)
        affine = None if norm is None else group_affine(x, *norm, lengths, kernels)
        prepare = functools.partial(scale_and_activate, activation)
        if repeats:
            x = prepare(x, affine, lengths)
            convolve = functools.partial(convolve_prepared, _identity, (), products=products)
            return convolve_repeated(convolve, x, kernel, repeats)
        return convolve_prepared(prepare, (affine, lengths), x, kernel, strides, pads, products)
    x = normalise(x, norm, activation, lengths, shift, kernels)
    if kernels == 'gpu' and repeats:
        return convolve_repeated(_convolve_padded, x, kernel, repeats)
    for axis, times in enumerate(repeats or (), start=1):
        x = jnp.repeat(x, times, axis) if times > 1 else x
    return _convolve(x, kernel, strides, pads)


def product_of(kernels: str) -> Callable[..., jax.Array]:
    """The `dot_general` of large linear layers."""
    return _rounded_product if kernels == 'cpu_bfloat16' else jax.lax.dot_general


def _rounded_product(x: jax.Array, y: jax.Array, *args: Any, **options: Any) -> jax.Array:
    options['preferred_element_type'] = jnp.float32
    rounded = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
    return jax.lax.dot_general(*rounded, *args, **options).astype(x.dtype)


def _convolve(x: jax.Array, kernel: jax.Array, strides: Any, pads: Any) -> jax.Array:
    layout = _LAYOUTS[x.ndim]
    return jax.lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=layout)


def _convolve_padded(x: jax.Array, kernel: jax.Array, strides: Any, pads: Any) -> jax.Array:
    """As `_convolve`, with the zeros written first.

    Otherwise XLA computes the gradient of a kernel of 2 × 2 entries as a convolution with a window
    as large as the input, which cuDNN does slowly.
    """
    x = jax.lax.optimization_barrier(jnp.pad(x, ((0, 0), *pads, (0, 0))))
    return _convolve(x, kernel, strides, ((0, 0),) * len(pads))


def normalise(
    x: jax.Array,
    norm: Norm | None,
    activation: Activation | None = None,
    lengths: Lengths = None,
    shift: jax.Array | None = None,
    kernels: str = 'xla',
) -> jax.Array:
    """activation(norm(x + shift)) in the type of `x` `[B, ..., T, C]`, zeros past `lengths`."""
    if kernels == 'gpu' and norm is not None:
        mask = None if lengths is None else time_mask(x, lengths)
        groups = _groups(x.shape[-1])
        return normalisation.normalise(activation or _identity, groups, x, *norm, shift, mask)
    x = _shifted(x, shift)
    affine = None if norm is None else group_affine(x, *norm, lengths, kernels)
    return scale_and_activate(activation, x, affine, lengths)


def scale_and_activate(
    activation: Activation | None, x: jax.Array, affine: Affine | None, lengths: Lengths
) -> jax.Array:
    """activation(x·gain + offset) in the type of `x` `[B, ..., T, C]`, zeros past `lengths`."""
    if affine is not None:
        gain, offset = affine
        x = (x.astype(jnp.float32) * gain + offset).astype(x.dtype)
    if activation is not None:
        x = activation(x)
    return mask_time(x, lengths)


def _shifted(x: jax.Array, shift: jax.Array | None) -> jax.Array:
    return x if shift is None else x + jnp.expand_dims(shift, range(1, x.ndim - 1))


def _identity(x: jax.Array) -> jax.Array:
    return x


def _groups(channels: int) -> int:
    """Groups of at least 4 channels, at most 32."""
    return min(channels // 4, 32)


def group_affine(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    lengths: Lengths = None,
    kernels: str = 'xla',
) -> Affine:
    """Gain and offset of group normalisation: x·gain + offset is x normalised, scaled and shifted.

    Statistics in float32 over space and each group's channels; groups of at least 4 channels, at
    most 32 groups. Means of channels are pooled into groups, which leaves the innermost axis whole:
    faster than `nn.GroupNorm`. `x` is `[B, ..., T, C]`; `scale` and `bias` are `[C]`.
    """
    channels = x.shape[-1]
    groups = _groups(channels)

    def pool(means: jax.Array) -> jax.Array:
        """Means `[B, C]` of channels to those of their groups, `[B, 1…, C]`."""
        pooled = jnp.mean(means.reshape(-1, groups, channels // groups), axis=-1)
        spread = jnp.repeat(pooled, channels // groups, axis=-1)
        return jnp.expand_dims(spread, range(1, x.ndim - 1))

    x = x.astype(jnp.float32)
    center = pool(channel_means(x, lengths, kernels=kernels))
    # To first order the variance doesn't depend on the center: the gradient needs one sum over all
    # activations less.
    fixed = jax.lax.stop_gradient(center)
    variance = pool(channel_means(x, lengths, lambda x: (x - fixed) ** 2, kernels=kernels))
    gain = jax.lax.rsqrt(variance + _EPSILON) * scale.astype(jnp.float32)
    return gain, bias.astype(jnp.float32) - center * gain


def channel_means(
    x: jax.Array, lengths: Lengths, terms: Activation = lambda x: x, *, kernels: str = 'xla'
) -> jax.Array:
    """Means of `terms(x)` over space, elementwise, of `x` `[B, ..., T, C]`: `[B, C]`.

    A row of no frames has means of zero.
    """
    space = range(1, x.ndim - 1)
    if lengths is None:
        return jnp.mean(terms(x), axis=space)

    def counted(x: jax.Array) -> jax.Array:
        return mask_time(terms(x), lengths)

    total = sum_over_space(x, counted) if kernels in _CPU else jnp.sum(counted(x), axis=space)
    counts = jnp.maximum(lengths, 1) * math.prod(x.shape[1:-2])  # [B]
    return total / counts[:, None]


def mask_time(x: jax.Array, lengths: Lengths) -> jax.Array:
    """Sets frames of `[B, ..., T, C]` past `lengths` `[B]` to zero; None keeps all."""
    return x if lengths is None else jnp.where(time_mask(x, lengths), x, 0)


def time_mask(x: jax.Array, lengths: jax.Array) -> jax.Array:
    """True for frames of `x` `[B, ..., T, C]` within `lengths` `[B]`: `[B, 1…, T, 1]`."""
    counted = jnp.arange(x.shape[-2]) < lengths[:, None]  # [B, T]
    return jnp.expand_dims(counted, (*range(1, x.ndim - 2), x.ndim - 1))

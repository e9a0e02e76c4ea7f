"""The operation that the model's layers are made of: normalise, activate and convolve.

`kernels` chooses how it is computed. 'xla' leaves that to XLA, and allows every kind of
differentiation. 'cpu' takes `m2l_jax.cpu_kernels`: faster there, and with gradients only, no
`jax.jvp`. 'gpu' needs fewer kernels and less memory traffic on NVIDIA's from Ampere on: statistics
from one pass, sums that XLA computes in one kernel, and, in 16 bits, cuDNN's attention, also with
gradients only. All give the same values but for rounding.

`lengths` `[B]` are the frames of each row that count, zeros taking the others' place; None for all.
"""

import functools
import math
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp

from m2l_jax.cpu_kernels.convolution import convolve_prepared
from m2l_jax.cpu_kernels.statistics import sum_over_space
from m2l_jax.cpu_kernels.subpixel import convolve_repeated

KERNELS = ('xla', 'cpu', 'gpu')
Activation = Callable[[jax.Array], jax.Array]
# Gain and offset, float32 `[B, P, 1…, C]`, each repeated for P parts of the first axis of space:
# 1, or on a GPU more, which sums their gradients over each part by itself.
Affine = tuple[jax.Array, jax.Array]

_LAYOUTS = {3: ('NHC', 'HIO', 'NHC'), 4: ('NHWC', 'HWIO', 'NHWC')}
_EPSILON = 1e-5
_GPU_SUM = 4096  # terms that XLA sums up in one kernel; of more, it sums the parts in another


def kernels_for(device: jax.Device) -> str:
    """The fastest kernels for a device."""
    if device.platform == 'cpu':
        return 'cpu'
    capability = str(getattr(device, 'compute_capability', ''))  # '9.0'; 'gfx942' of AMD's
    return 'gpu' if re.fullmatch(r'([89]|\d\d)\.\d', capability) else 'xla'


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    affine: Affine | None = None,
    activation: Activation | None = None,
    lengths: jax.Array | None = None,
    *,
    strides: tuple[int, ...] | None = None,
    repeats: tuple[int, int] | None = None,
    kernels: str = 'xla',
) -> jax.Array:
    """Convolution of activation(x·gain + offset), padded by half the kernel on *both* sides.

    ('SAME' would pad an even-sized input of a strided convolution on one side only.)

    Args:
      x: `[B, ..., T, C]`.
      kernel: `[..., C, K]`.
      affine: gain and offset; None for 1 and 0.
      activation: None for the identity.
      lengths: `[B]`, see above.
      strides: one for each spatial axis; None for 1.
      repeats: times that each entry is repeated along frequency and time before it is convolved,
        1 or even; None for once.
      kernels: see above.

    Returns:
      `[B, ..., T', K]`.
    """
    strides = strides or (1,) * (x.ndim - 2)
    pads = tuple((size // 2, size // 2) for size in kernel.shape[:-2])
    prepare = functools.partial(normalise, activation=activation)
    if kernels == 'cpu':
        if repeats:
            return convolve_repeated(prepare(x, affine, lengths), kernel, repeats)
        return convolve_prepared(prepare, (affine, lengths), x, kernel, strides, pads)
    x = prepare(x, affine, lengths)
    for axis, times in enumerate(repeats or (), start=1):
        x = jnp.repeat(x, times, axis) if times > 1 else x
    return jax.lax.conv_general_dilated(
        x, kernel, strides, pads, dimension_numbers=_LAYOUTS[x.ndim]
    )


def normalise(
    x: jax.Array,
    affine: Affine | None,
    lengths: jax.Array | None,
    activation: Activation | None = None,
) -> jax.Array:
    """activation(x·gain + offset) in the type of `x` `[B, ..., T, C]`, zeros past `lengths`."""
    if affine is not None:
        gain, offset = affine
        parts, shape = gain.shape[1], x.shape
        if parts > 1:
            x = _split(x, parts)
            gain, offset = gain[:, :, None], offset[:, :, None]
        x = (x.astype(jnp.float32) * gain + offset).astype(x.dtype).reshape(shape)
    if activation is not None:
        x = activation(x)
    return mask_time(x, lengths)


def group_affine(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    lengths: jax.Array | None = None,
    kernels: str = 'xla',
) -> Affine:
    """Gain and offset of group normalisation: x·gain + offset is x normalised, scaled and shifted.

    Statistics in float32 over space and each group's channels; groups of at least 4 channels, at
    most 32 groups. Means of channels are pooled into groups, which leaves the innermost axis whole:
    faster than `nn.GroupNorm`.

    Args:
      x: `[B, ..., T, C]`.
      scale, bias: `[C]`.
      lengths: `[B]`, see above.
      kernels: see above.
    """
    channels = x.shape[-1]
    groups = min(channels // 4, 32)

    def pool(means: jax.Array) -> jax.Array:
        """Means `[B, C]` of channels to those of their groups, `[B, 1…, C]`."""
        pooled = jnp.mean(means.reshape(-1, groups, channels // groups), axis=-1)
        spread = jnp.repeat(pooled, channels // groups, axis=-1)
        return jnp.expand_dims(spread, range(1, x.ndim - 1))

    scale, bias = scale.astype(jnp.float32), bias.astype(jnp.float32)
    if kernels == 'gpu':
        return _group_affine_in_one_pass(x, scale, bias, lengths, groups)
    x = x.astype(jnp.float32)
    center = pool(channel_means(x, lengths, kernels=kernels))
    # To first order the variance doesn't depend on the center: the gradient needs one sum over all
    # activations less.
    fixed = jax.lax.stop_gradient(center)
    variance = pool(channel_means(x, lengths, lambda x: (x - fixed) ** 2, kernels=kernels))
    gain = jax.lax.rsqrt(variance + _EPSILON) * scale
    return gain, bias - center * gain


def _group_affine_in_one_pass(
    x: jax.Array, scale: jax.Array, bias: jax.Array, lengths: jax.Array | None, groups: int
) -> Affine:
    """As `group_affine`; sums of x and x² less a number of the row, against cancellation.

    Sums over few numbers are written as additions: XLA makes them part of the next kernel.
    """
    size = x.shape[-1] // groups
    points = math.prod(x.shape[1:-1])
    parts = -(-points // _GPU_SUM)
    parts = parts if parts <= 32 and x.shape[1] % parts == 0 else 1
    pivot = jax.lax.stop_gradient(x.reshape(x.shape[0], -1)[:, 0].astype(jnp.float32))
    pivot = jnp.expand_dims(pivot, range(1, x.ndim))  # [B, 1…]
    shifted = mask_time(x.astype(jnp.float32) - pivot, lengths)
    counts = points
    if lengths is not None:
        counts = (jnp.maximum(lengths, 1) * (points // x.shape[-2]))[:, None]

    def pool(terms: jax.Array) -> jax.Array:
        """Means over space and each group's channels, `[B, groups]`."""
        sums = jnp.sum(_split(terms, parts), axis=range(2, x.ndim))  # [B, P, C]
        sums = sum(sums[:, part] for part in range(parts))
        sums = sums.reshape(-1, groups, size)
        return sum(sums[..., channel] for channel in range(size)) / (counts * size)

    center = pool(shifted)
    variance = jnp.maximum(pool(shifted**2) - center**2, 0)
    factor, center = jax.lax.rsqrt(variance + _EPSILON), center + pivot.reshape(-1, 1)

    def spread(values: jax.Array) -> jax.Array:
        """`[B, groups]` to `[B, C]`."""
        return jnp.stack([values] * size, axis=-1).reshape(x.shape[0], -1)

    gain = spread(factor) * scale
    offset = bias - spread(center) * gain
    return tuple(
        jnp.expand_dims(jnp.stack([value] * parts, axis=1), range(2, x.ndim - 1))
        for value in (gain, offset)
    )


def _split(x: jax.Array, parts: int) -> jax.Array:
    """`[B, F, …, C]` to `[B, parts, F/parts, …, C]`."""
    return x.reshape(x.shape[0], parts, x.shape[1] // parts, *x.shape[2:])


def channel_means(
    x: jax.Array,
    lengths: jax.Array | None,
    terms: Activation = lambda x: x,
    *,
    kernels: str = 'xla',
) -> jax.Array:
    """Means of `terms(x)` over space, for each row and channel of `x` `[B, ..., T, C]`: `[B, C]`.

    `terms` maps each part of `x` by itself. A row of no frames has means of zero.
    """
    space = range(1, x.ndim - 1)
    if lengths is None:
        return jnp.mean(terms(x), axis=space)

    def counted(x: jax.Array) -> jax.Array:
        return mask_time(terms(x), lengths)

    total = sum_over_space(x, counted) if kernels == 'cpu' else jnp.sum(counted(x), axis=space)
    counts = jnp.maximum(lengths, 1) * math.prod(x.shape[1:-2])  # [B]
    return total / counts[:, None]


def mask_time(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """Sets frames of `[B, ..., T, C]` past `lengths` `[B]` to zero; None keeps all."""
    if lengths is None:
        return x
    counted = jnp.arange(x.shape[-2]) < lengths[:, None]  # [B, T]
    return jnp.where(jnp.expand_dims(counted, (*range(1, x.ndim - 2), x.ndim - 1)), x, 0)

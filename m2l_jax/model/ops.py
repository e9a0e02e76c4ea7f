"""The operation that the model's layers are made of: normalise, activate and convolve.

`kernels` is 'xla', which allows every kind of differentiation, or 'cpu', with gradients only, no
`jax.jvp`, which is faster there. Both give the same values but for rounding.

`lengths` `[B]` are the frames of each row that count, zeros taking the others' place; None for all.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from m2l_jax.cpu_kernels.convolution import convolve_prepared
from m2l_jax.cpu_kernels.statistics import sum_over_space
from m2l_jax.cpu_kernels.subpixel import convolve_repeated

KERNELS = ('xla', 'cpu')
Activation = Callable[[jax.Array], jax.Array]
Affine = tuple[jax.Array, jax.Array]  # gain and offset, float32 `[B, 1…, C]`
Lengths = jax.Array | None  # `[B]`

_LAYOUTS = {3: ('NHC', 'HIO', 'NHC'), 4: ('NHWC', 'HWIO', 'NHWC')}
_EPSILON = 1e-5


def kernels_for(platform: str) -> str:
    """The kernels for devices of a platform, such as 'cpu' or 'tpu'."""
    return 'cpu' if platform == 'cpu' else 'xla'


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    affine: Affine | None = None,
    activation: Activation | None = None,
    lengths: Lengths = None,
    *,
    strides: tuple[int, ...] | None = None,
    repeats: tuple[int, int] | None = None,
    kernels: str = 'xla',
) -> jax.Array:
    """Convolution of activation(x·gain + offset), padded by half the kernel on *both* sides.

    ('SAME' would pad an even-sized input of a strided convolution on one side only.)

    Args:
      x: `[B, ..., T, C]`; the result is `[B, ..., T', K]`.
      kernel: `[..., C, K]`.
      affine: gain and offset; None for 1 and 0.
      activation: None for the identity.
      lengths, kernels: see above.
      strides: one for each spatial axis; None for 1.
      repeats: times that each entry is repeated along frequency and time before it is convolved,
        1 or even; None for once.
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
    layout = _LAYOUTS[x.ndim]
    return jax.lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=layout)


def normalise(
    x: jax.Array, affine: Affine | None, lengths: Lengths, activation: Activation | None = None
) -> jax.Array:
    """activation(x·gain + offset) in the type of `x` `[B, ..., T, C]`, zeros past `lengths`."""
    if affine is not None:
        gain, offset = affine
        x = (x.astype(jnp.float32) * gain + offset).astype(x.dtype)
    if activation is not None:
        x = activation(x)
    return mask_time(x, lengths)


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
    groups = min(channels // 4, 32)

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

    total = sum_over_space(x, counted) if kernels == 'cpu' else jnp.sum(counted(x), axis=space)
    counts = jnp.maximum(lengths, 1) * math.prod(x.shape[1:-2])  # [B]
    return total / counts[:, None]


def mask_time(x: jax.Array, lengths: Lengths) -> jax.Array:
    """Sets frames of `[B, ..., T, C]` past `lengths` `[B]` to zero; None keeps all."""
    if lengths is None:
        return x
    counted = jnp.arange(x.shape[-2]) < lengths[:, None]  # [B, T]
    return jnp.where(jnp.expand_dims(counted, (*range(1, x.ndim - 2), x.ndim - 1)), x, 0)

"""The blocks that encoder, decoder and UNet are made of. Channels last: `[B, F, T, C]` or `[B, T, C]`."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

Dtype = str | jnp.dtype


def fan_in_uniform(fan_in: int) -> nn.initializers.Initializer:
    """U(±1/√fan_in), the reference's initialisation of convolutions and linears, biases included."""
    bound = 1 / math.sqrt(fan_in)

    def initialise(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return initialise


def linear(
    in_features: int,
    features: int,
    dtype: Dtype,
    param_dtype: Dtype,
    zero_init: bool = False,
    name: str | None = None,
) -> nn.Dense:
    """A linear layer over the last axis."""
    initialise = nn.initializers.zeros if zero_init else fan_in_uniform(in_features)
    return nn.Dense(
        features,
        dtype=dtype,
        param_dtype=param_dtype,
        kernel_init=initialise,
        bias_init=initialise,
        name=name,
    )


def conv(
    in_channels: int,
    channels: int,
    kernel: Sequence[int],
    dtype: Dtype,
    param_dtype: Dtype,
    strides: Sequence[int] | None = None,
    zero_init: bool = False,
    name: str | None = None,
) -> nn.Conv:
    """A convolution padded by half its kernel on *both* sides, also where it strides.

    ('SAME' would pad an even-sized input of a strided convolution on one side only.)
    """
    initialise = (
        nn.initializers.zeros if zero_init else fan_in_uniform(in_channels * math.prod(kernel))
    )
    return nn.Conv(
        channels,
        tuple(kernel),
        strides=strides,
        padding=[(size // 2, size // 2) for size in kernel],
        dtype=dtype,
        param_dtype=param_dtype,
        kernel_init=initialise,
        bias_init=initialise,
        name=name,
    )


def group_norm(
    channels: int, dtype: Dtype, param_dtype: Dtype, name: str | None = None
) -> nn.GroupNorm:
    """Group normalisation over space and each group's channels, with statistics in float32."""
    return nn.GroupNorm(
        num_groups=min(channels // 4, 32),
        epsilon=1e-5,
        use_fast_variance=False,  # E[x²] - E[x]² loses the variance of loud, even spectra
        dtype=dtype,
        param_dtype=param_dtype,
        name=name,
    )


class FrequencyAttention(nn.Module):
    """x + multi-head self-attention over the frequency axis, a time frame at a time."""

    heads: int
    dtype: Dtype
    param_dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, F, T, C]` to the same."""
        batch, bins, frames, channels = x.shape
        types = (self.dtype, self.param_dtype)
        h = group_norm(channels, *types, name='norm')(x).swapaxes(1, 2)  # [B, T, F, C]
        qkv = nn.Dense(
            3 * channels,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=nn.initializers.xavier_uniform(),
            name='qkv',
        )(h)
        qkv = qkv.reshape(batch * frames, bins, 3, self.heads, channels // self.heads)
        query, key, value = (qkv[:, :, part] for part in range(3))  # [B·T, F, heads, C/heads]
        h = jax.nn.dot_product_attention(query, key, value)  # softmax in float32
        h = h.reshape(batch, frames, bins, channels)  # [B, T, F, C]
        h = nn.Dense(
            channels,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=nn.initializers.zeros,
            name='out',
        )(h)
        return x + h.swapaxes(1, 2)  # [B, F, T, C]


class ResBlock(nn.Module):
    """Two normalised convolutions around a shortcut, then attention where the level has it.

    Works over `[B, F, T, C]` and over `[B, T, C]`, with kernels of size 3 on every axis.

    Attributes:
      channels: output channels; the shortcut is a 1×1 convolution where the input has others.
      attention_heads: heads of the frequency attention at the end; 0 for none.
    """

    channels: int
    dtype: Dtype
    param_dtype: Dtype
    attention_heads: int = 0

    @nn.compact
    def __call__(self, x: jax.Array, time_embedding: jax.Array | None = None) -> jax.Array:
        """`x` `[B, ..., C_in]`, `time_embedding` `[B, E]`; returns `[B, ..., channels]`."""
        types = (self.dtype, self.param_dtype)
        spatial = x.ndim - 2
        kernel = (3,) * spatial
        in_channels = x.shape[-1]

        h = nn.silu(group_norm(in_channels, *types, name='norm_in')(x))
        h = conv(in_channels, self.channels, kernel, *types, name='conv_in')(h)
        if time_embedding is not None:
            width = time_embedding.shape[-1]
            shift = linear(width, self.channels, *types, zero_init=True, name='time_shift')
            h += jnp.expand_dims(shift(time_embedding), range(1, 1 + spatial))  # [B, 1…, C]
        h = nn.silu(group_norm(self.channels, *types, name='norm_out')(h))
        h = conv(
            self.channels, self.channels, kernel, *types, zero_init=True, name='conv_out'
        )(h)

        if in_channels != self.channels:
            x = conv(in_channels, self.channels, (1,) * spatial, *types, name='shortcut')(x)
        x = x + h
        if self.attention_heads:
            x = FrequencyAttention(self.attention_heads, *types, name='attention')(x)
        return x


class Downsample(nn.Module):
    """A strided convolution that shrinks frequency and time by the given factors."""

    channels: int
    factors: tuple[int, int]
    dtype: Dtype
    param_dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, F, T, C]` to `[B, F/f, T/t, channels]`."""
        return conv(
            x.shape[-1],
            self.channels,
            _resampling_kernel(self.factors),
            self.dtype,
            self.param_dtype,
            strides=self.factors,
            name='conv',
        )(x)


class Upsample(nn.Module):
    """Nearest-neighbour repetition by the given factors, then a convolution."""

    channels: int
    factors: tuple[int, int]
    dtype: Dtype
    param_dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, F, T, C]` to `[B, F·f, T·t, channels]`."""
        for axis, factor in zip((1, 2), self.factors, strict=True):
            if factor > 1:
                x = jnp.repeat(x, factor, axis=axis)
        kernel = _resampling_kernel(self.factors)
        types = (self.dtype, self.param_dtype)
        return conv(x.shape[-1], self.channels, kernel, *types, name='conv')(x)


def _resampling_kernel(factors: tuple[int, int]) -> tuple[int, ...]:
    """The kernel that goes with a factor: 3 with 2, 5 with 4, 1 where nothing is resampled."""
    return tuple(factor + 1 if factor > 1 else 1 for factor in factors)

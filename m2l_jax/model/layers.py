"""Layers of encoder, decoder and UNet. Channels last: `[B, F, T, C]` or `[B, T, C]`.

`lengths` `[B]` are the frames of each row that count; None for all. Outputs within them don't
depend on frames beyond; outputs beyond are undefined.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from m2l_jax.model import ops
from m2l_jax.model.config import ModelConfig

Dtype = str | jnp.dtype


class Layer(nn.Module, kw_only=True):
    """Base of all layers: types of computation and parameters, and the kernels, see `ops`."""

    dtype: Dtype = 'float32'
    param_dtype: Dtype = 'float32'
    kernels: str = 'xla'

    @property
    def types(self) -> dict[str, Dtype]:
        """Fields of linear layers inside this one."""
        return {'dtype': self.dtype, 'param_dtype': self.param_dtype}

    @property
    def options(self) -> dict[str, Dtype]:
        """Fields of other layers inside this one."""
        return {**self.types, 'kernels': self.kernels}


def fan_in_uniform(fan_in: int) -> nn.initializers.Initializer:
    """U(±1/√fan_in), the reference's for convolutions and linear layers, biases included."""
    bound = 1 / math.sqrt(fan_in)

    def initialise(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return initialise


def linear(in_features: int, features: int, zero_init: bool = False, **options: Any) -> nn.Dense:
    """Linear layer over the last axis; `options` are other fields of `nn.Dense`."""
    initialise = nn.initializers.zeros if zero_init else fan_in_uniform(in_features)
    return nn.Dense(features, kernel_init=initialise, bias_init=initialise, **options)


class Conv(Layer):
    """Convolution, optionally of its normalised and activated input; see `ops.convolve`."""

    features: int
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    repeats: tuple[int, int] | None = None
    zero_init: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        norm: ops.Norm | None = None,
        activation: ops.Activation | None = None,
        lengths: ops.Lengths = None,
        shift: jax.Array | None = None,
    ) -> jax.Array:
        """`[B, ..., T, C]` to `[B, ..., T', features]`; arguments as in `ops.convolve`."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        fan_in = math.prod(shape[:-1])
        initialise = nn.initializers.zeros if self.zero_init else fan_in_uniform(fan_in)
        kernel = self.param('kernel', initialise, shape, self.param_dtype)
        bias = self.param('bias', initialise, (self.features,), self.param_dtype)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        options = {'strides': self.strides, 'repeats': self.repeats, 'kernels': self.kernels}
        return ops.convolve(x, kernel, norm, activation, lengths, shift=shift, **options) + bias


class GroupNorm(Layer):
    """Group normalisation over space and each group's channels, see `ops.group_affine`."""

    def __call__(
        self,
        x: jax.Array,
        lengths: ops.Lengths = None,
        activation: ops.Activation | None = None,
    ) -> jax.Array:
        """`[B, ..., T, C]` to the same, activated, with zeros past `lengths`."""
        norm = self.norm(x.shape[-1])
        x = ops.normalise(x, norm, activation, lengths, kernels=self.kernels)
        return x.astype(self.dtype)

    @nn.compact
    def norm(self, channels: int) -> ops.Norm:
        """Scale and bias, for `Conv`."""
        scale = self.param('scale', nn.initializers.ones, (channels,), self.param_dtype)
        return scale, self.param('bias', nn.initializers.zeros, (channels,), self.param_dtype)


def attend(query: jax.Array, key: jax.Array, value: jax.Array, kernels: str = 'xla') -> jax.Array:
    """Scaled dot-product attention, `[B, N, heads, C]` each; softmax in float32.

    Weights are normalised after they are summed up, on N·C numbers instead of N²: on a CPU, with
    the batched products, 3 times as fast forward as `jax.nn.dot_product_attention`.
    """
    length, _, width = query.shape[1:]
    takes = query.dtype.itemsize == 2 and width % 8 == 0 and width <= 128 and length % 2 == 0
    if kernels == 'gpu' and takes:  # cuDNN's conditions
        return jax.nn.dot_product_attention(query, key, value, implementation='cudnn')
    query, key, value = (array.swapaxes(1, 2) for array in (query, key, value))  # [B, heads, N, C]
    query = query / math.sqrt(query.shape[-1])
    logits = jnp.matmul(query, key.swapaxes(2, 3), preferred_element_type=jnp.float32)
    # Any constant cancels in the quotient; the largest logit keeps the exponential in range.
    weights = jnp.exp(logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True)))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    summed = jnp.matmul(weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
    return (summed / total).astype(value.dtype).swapaxes(1, 2)


class FrequencyAttention(Layer):
    """x + multi-head self-attention over the frequency axis, in each time frame by itself."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array, lengths: ops.Lengths = None) -> jax.Array:
        """`[B, F, T, C]` to the same."""
        batch, bins, frames, channels = x.shape
        h = GroupNorm(**self.options, name='norm')(x, lengths).swapaxes(1, 2)  # [B, T, F, C]
        xavier = nn.initializers.xavier_uniform()
        options = {**self.types, 'dot_general': ops.product_of(self.kernels)}
        qkv = nn.Dense(3 * channels, **options, kernel_init=xavier, name='qkv')(h)
        qkv = qkv.reshape(batch * frames, bins, 3, self.heads, channels // self.heads)
        query, key, value = (qkv[:, :, part] for part in range(3))  # [B·T, F, heads, C/heads]
        h = attend(query, key, value, self.kernels)
        h = h.reshape(batch, frames, bins, channels)  # [B, T, F, C]
        h = nn.Dense(channels, **options, kernel_init=nn.initializers.zeros, name='out')(h)
        return x + h.swapaxes(1, 2)  # [B, F, T, C]


class ResBlock(Layer):
    """Two normalised convolutions and a shortcut, then frequency attention if it has any heads.

    Works over `[B, F, T, C]` and over `[B, T, C]`, with kernels of size 3 on every axis. The
    shortcut is a 1×1 convolution where the input has other channels.
    """

    channels: int
    attention_heads: int = 0

    @nn.compact
    def __call__(
        self, x: jax.Array, time_embedding: jax.Array | None = None, lengths: ops.Lengths = None
    ) -> jax.Array:
        """`x` `[B, ..., T, C_in]`, `time_embedding` `[B, E]`; returns `[B, ..., T, channels]`."""
        spatial = x.ndim - 2
        kernel = (3,) * spatial

        norm = GroupNorm(**self.options, name='norm_in').norm(x.shape[-1])
        conv = Conv(self.channels, kernel, **self.options, name='conv_in')
        h = conv(x, norm, nn.silu, lengths)
        shift = None
        if time_embedding is not None:
            width = time_embedding.shape[-1]
            project = linear(width, self.channels, True, **self.types, name='time_shift')
            shift = project(time_embedding)  # [B, C]
        norm = GroupNorm(**self.options, name='norm_out').norm(self.channels)
        conv = Conv(self.channels, kernel, **self.options, zero_init=True, name='conv_out')
        h = conv(h, norm, nn.silu, lengths, shift)

        if x.shape[-1] != self.channels:
            x = Conv(self.channels, (1,) * spatial, **self.options, name='shortcut')(x)
        x = x + h
        if self.attention_heads:
            attention = FrequencyAttention(self.attention_heads, **self.options, name='attention')
            x = attention(x, lengths)
        return x


class Downsample(Layer):
    """Strided convolution that shrinks frequency and time by the given factors.

    With even factors no output within a row's own frames depends on frames beyond.
    """

    channels: int
    factors: tuple[int, int]
    resampling = 'strides'

    @nn.compact
    def __call__(
        self, x: jax.Array, norm: ops.Norm | None = None, lengths: ops.Lengths = None
    ) -> jax.Array:
        """`[B, F, T, C]`, normalised by `norm` if any, to `[B, F/f, T/t, channels]`."""
        kernel = tuple(factor + 1 if factor > 1 else 1 for factor in self.factors)
        options = {self.resampling: self.factors, **self.options}
        return Conv(self.channels, kernel, **options, name='conv')(x, norm, None, lengths)


class Upsample(Downsample):
    """Nearest-neighbour repetition by the given factors, then a convolution: to `[B, F·f, T·t]`."""

    resampling = 'repeats'


class Part(nn.Module):
    """Base of encoder, decoder and UNet, which makes their layers as the config says."""

    config: ModelConfig
    kernels: str = 'xla'

    @property
    def options(self) -> dict[str, Dtype]:
        """Fields of the layers inside."""
        config = self.config
        return {'dtype': config.dtype, 'param_dtype': config.param_dtype, 'kernels': self.kernels}

    def blocks(self, count: int, width: int, attends: bool = False) -> list[ResBlock]:
        """Residual blocks of one level."""
        block = nn.remat(ResBlock) if self.config.remat else ResBlock
        heads = self.config.attention_heads if attends else 0
        return [block(width, heads, **self.options) for _ in range(count)]

    def block_levels(self, count: int) -> list[list[ResBlock]]:
        """Residual blocks of each level, `count` of them."""
        levels = zip(self.config.widths, self.config.attention, strict=True)
        return [self.blocks(count, width, attends) for width, attends in levels]

    def resampling(self, layer: type[Layer], widths: Sequence[int]) -> list[Layer]:
        """`Downsample` or `Upsample` layers between levels, with outputs of the given widths."""
        steps = zip(widths, self.config.downsampling, strict=False)
        return [layer(width, factors, **self.options) for width, factors in steps]

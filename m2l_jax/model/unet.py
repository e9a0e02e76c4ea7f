"""The consistency model: a noisy spectrogram and a pyramid in, a clean spectrogram out."""

import functools
import math
import operator
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from m2l_jax.consistency.noise import NoiseLevels
from m2l_jax.model import ops
from m2l_jax.model.layers import Conv, Downsample, GroupNorm, Layer, Part, Upsample, linear


def preconditioning(
    sigma: jax.Array, levels: NoiseLevels
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """c_skip, c_out and c_in at σ, any shape (Song et al. 2023, appendix C).

    At σ_min, c_skip is 1 and c_out 0 exactly: the boundary condition f(x, σ_min) = x.
    """
    offset = sigma - levels.sigma_min
    c_skip = levels.sigma_data**2 / (offset**2 + levels.sigma_data**2)
    scale = jnp.sqrt(sigma**2 + levels.sigma_data**2)
    return c_skip, levels.sigma_data * offset / scale, 1 / scale


def noise_embedding(sigma: jax.Array, channels: int) -> jax.Array:
    """Sinusoids of (log σ)/4 at frequencies from 1 down to 1/10000: `[B]` to `[B, channels]`."""
    half = channels // 2
    frequencies = jnp.exp(-math.log(10_000) * jnp.arange(half) / (half - 1))
    angles = jnp.log(sigma)[:, None] / 4 * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class NoiseMLP(Layer):
    """Two linear layers, each followed by SiLU, on the noise embedding."""

    @nn.compact
    def __call__(self, embedding: jax.Array) -> jax.Array:
        """`[B, E]` to `[B, E]`."""
        width = embedding.shape[-1]
        h = nn.silu(linear(width, width, **self.types, name='linear_0')(embedding))
        return nn.silu(linear(width, width, **self.types, name='linear_1')(h))


class FrequencyScale(Layer):
    """Adaptive frequency scaling: an MLP from the noise level to each bin's gain, 1 at first."""

    bins: int

    @nn.compact
    def __call__(self, embedding: jax.Array) -> jax.Array:
        """`[B, E]` to gains `[B, F, 1, 1]`."""
        h = NoiseMLP(**self.types, name='hidden')(embedding)
        out = linear(embedding.shape[-1], self.bins, True, **self.types, name='out')
        return 1 + out(h)[..., None, None]


class ConsistencyUNet(Part):
    """UNet whose levels add the decoder's pyramid through 1×1 convolutions."""

    def setup(self):
        config, options = self.config, self.options
        widths, blocks, bins = config.widths, config.unet_blocks, config.spectrogram.bins
        self.conditioning = NoiseMLP(**options)
        if config.frequency_scaling:
            self.scale_in = FrequencyScale(bins, **options)
            self.scale_out = FrequencyScale(bins, **options)
        self.conv_in = Conv(widths[0], (3, 3), **options)

        def cross(always=()):
            return [
                [
                    Conv(width, (1, 1), **options)
                    if config.cross_connections or (level, block) in always
                    else None
                    for block in range(blocks)
                ]
                for level, width in enumerate(widths)
            ]

        # The first one is the only way for latents without cross connections.
        self.down_cross, self.down_blocks = cross(always=[(0, 0)]), self.block_levels(blocks)
        self.up_cross, self.up_blocks = cross(), self.block_levels(blocks)
        # downs[level] leads from level to level + 1, ups[level] back.
        self.downs = self.resampling(Downsample, widths[1:])
        self.ups = self.resampling(Upsample, widths)
        self.cross_out = Conv(widths[0], (1, 1), **options) if config.cross_connections else None
        self.norm_out = GroupNorm(**options)
        self.conv_out = Conv(config.channels, (3, 3), **options, zero_init=True)

    def __call__(
        self,
        noisy: jax.Array,
        sigma: jax.Array,
        pyramid: Sequence[jax.Array],
        lengths: ops.Lengths = None,
    ) -> jax.Array:
        """Noisy `[B, F, T, 2]` at levels `[B]`, with the decoder's pyramid, to clean, float32."""
        noisy = noisy.astype(jnp.float32)
        factors = preconditioning(sigma, self.config.noise)
        c_skip, c_out, c_in = (factor[:, None, None, None] for factor in factors)
        residual = self._residual(c_in * noisy, sigma, pyramid, self.config.frames_of(lengths))
        return c_skip * noisy + c_out * residual.astype(jnp.float32)

    def _residual(
        self,
        scaled: jax.Array,
        sigma: jax.Array,
        pyramid: Sequence[jax.Array],
        frames: Sequence[jax.Array | None],
    ) -> jax.Array:
        """F_θ(c_in·x, σ), the network between the preconditioning factors."""
        embedding = noise_embedding(sigma, self.config.embedding_channels)
        time_embedding = self.conditioning(embedding)
        x = self.conv_in(scaled, lengths=frames[0])
        if self.config.frequency_scaling:
            x = x * self.scale_in(embedding)
        skips = []
        for level in range(len(pyramid)):
            for cross, block in zip(self.down_cross[level], self.down_blocks[level], strict=True):
                x = _join(x, _connect(cross, pyramid[level]))
                x = block(x, time_embedding, frames[level])
                skips.append(x)
            if level < len(self.downs):
                x = self.downs[level](x)
        for level in reversed(range(len(pyramid))):
            for cross, block in zip(self.up_cross[level], self.up_blocks[level], strict=True):
                x = _join(x, skips.pop(), _connect(cross, pyramid[level]))
                x = block(x, time_embedding, frames[level])
            if level > 0:
                x = self.ups[level - 1](x, lengths=frames[level])
        x = _join(x, _connect(self.cross_out, pyramid[0]))
        x = self.norm_out(x, frames[0], nn.silu)
        if self.config.frequency_scaling:
            x = x * self.scale_out(embedding)
        return self.conv_out(x)


def _connect(cross: Conv | None, activation: jax.Array) -> jax.Array | None:
    return None if cross is None else cross(activation)


def _join(*parts: jax.Array | None) -> jax.Array:
    """Sum of the n parts that there are, over √n."""
    present = [part for part in parts if part is not None]
    if len(present) == 1:
        return present[0]
    return functools.reduce(operator.add, present) / math.sqrt(len(present))

"""The encoder: a spectrogram in, latents in [-1, 1] out."""

import flax.linen as nn
import jax

from m2l_jax.model.config import ModelConfig
from m2l_jax.model.layers import Downsample, GroupNorm, conv, res_block
from m2l_jax.model.masks import mask_time


class Encoder(nn.Module):
    """Convolutional levels over frequency and time, then a bottleneck over time."""

    config: ModelConfig

    def setup(self):
        config = self.config
        types = (config.dtype, config.param_dtype)
        channels = config.channels
        self.conv_in = conv(2, channels[0], (3, 3), *types)
        self.gain = self.param(
            'gain', nn.initializers.ones, (config.spectrogram.bins,), config.param_dtype
        )
        self.levels = [
            [res_block(config, width, attends) for _ in range(config.encoder_blocks)]
            for width, attends in zip(channels, config.attention, strict=True)
        ]
        self.norms = [GroupNorm(*types) for _ in channels]
        self.downs = [
            Downsample(width, factors, *types)
            for width, factors in zip(channels, config.downsampling, strict=False)
        ]
        width = config.bottleneck_channels
        self.bottleneck_in = conv(config.feature_channels, width, (1,), *types)
        self.bottleneck = [res_block(config, width) for _ in range(config.bottleneck_blocks)]
        self.norm_out = GroupNorm(*types)
        self.conv_out = conv(width, config.latent_channels, (1,), *types)

    def features(self, spectrogram: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
        """`[B, F, T, 2]` to `[B, T/8, 8192]` (at full size), channel-major: index = c·32 + f."""
        frames = self.config.frames_of(lengths)
        x = self.conv_in(mask_time(spectrogram, frames[0]))
        x = x * self.gain.astype(x.dtype)[:, None, None]
        for level, blocks in enumerate(self.levels):
            for block in blocks:
                x = block(x, lengths=frames[level])
            norm = self.norms[level]
            if level < len(self.downs):
                x = self.downs[level](x, norm, frames[level])
            else:
                x = norm(x, frames[level])
        x = x.transpose(0, 2, 3, 1)  # [B, T/8, C, F/32]
        return x.reshape(*x.shape[:2], -1)  # [B, T/8, C·F/32]

    def __call__(self, spectrogram: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
        """`[B, F, T, 2]` to latents `[B, T/8, 64]` in [-1, 1]."""
        x = self.bottleneck_in(self.features(spectrogram, lengths))
        for block in self.bottleneck:
            x = block(x, lengths=lengths)
        return nn.tanh(self.conv_out(nn.silu(self.norm_out(x, lengths))))

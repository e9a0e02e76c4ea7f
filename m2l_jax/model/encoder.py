"""The encoder: a spectrogram in, latents in [-1, 1] out."""

import flax.linen as nn
import jax

from m2l_jax.model import ops
from m2l_jax.model.bottleneck import BOTTLENECKS
from m2l_jax.model.layers import Conv, Downsample, GroupNorm, Part


class Encoder(Part):
    """Convolutional levels over frequency and time, then a stack over time and a bottleneck."""

    def setup(self):
        config = self.config
        self.conv_in = Conv(config.widths[0], (3, 3), **self.options)
        if config.frequency_scaling:
            self.gain = self.param(
                'gain', nn.initializers.ones, (config.spectrogram.bins,), config.param_dtype
            )
        self.levels = self.block_levels(config.encoder_blocks)
        self.norms = [GroupNorm(**self.options) for _ in config.widths]
        self.downs = self.resampling(Downsample, config.widths)
        width = config.bottleneck_channels
        self.bottleneck_in = Conv(width, (1,), **self.options)
        self.bottleneck = self.blocks(config.bottleneck_blocks, width)
        self.norm_out = GroupNorm(**self.options)
        self.conv_out = Conv(config.latent_channels, (1,), **self.options)
        self.to_latents = BOTTLENECKS[config.bottleneck]()

    def features(self, spectrogram: jax.Array, lengths: ops.Lengths = None) -> jax.Array:
        """`[B, F, T, 2]` to `[B, T/8, 8192]` (at full size), channel-major: index = c·32 + f."""
        frames = self.config.frames_of(lengths)
        x = self.conv_in(spectrogram, lengths=frames[0])
        if self.config.frequency_scaling:
            x = x * self.gain.astype(x.dtype)[:, None, None]
        for level, blocks in enumerate(self.levels):
            for block in blocks:
                x = block(x, lengths=frames[level])
            norm = self.norms[level]
            if level < len(self.downs):
                x = self.downs[level](x, norm.norm(x.shape[-1]), frames[level])
            else:
                x = norm(x, frames[level])
        x = x.transpose(0, 2, 3, 1)  # [B, T/8, C, F/32]
        return x.reshape(*x.shape[:2], -1)  # [B, T/8, C·F/32]

    def __call__(self, spectrogram: jax.Array, lengths: ops.Lengths = None) -> jax.Array:
        """`[B, F, T, 2]` to latents `[B, T/8, 64]` in [-1, 1]."""
        x = self.bottleneck_in(self.features(spectrogram, lengths))
        for block in self.bottleneck:
            x = block(x, lengths=lengths)
        return self.to_latents(self.conv_out(self.norm_out(x, lengths, nn.silu)))

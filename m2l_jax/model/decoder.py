"""The decoder: latents in, the pyramid that conditions the UNet out."""

import flax.linen as nn
import jax

from m2l_jax.model.config import ModelConfig
from m2l_jax.model.layers import Upsample, conv, res_block


class Decoder(nn.Module):
    """The encoder mirrored; it knows nothing of noise."""

    config: ModelConfig

    def setup(self):
        config = self.config
        types = (config.dtype, config.param_dtype)
        width = config.bottleneck_channels
        self.conv_in = conv(config.latent_channels, width, (1,), *types)
        self.bottleneck = [res_block(config, width) for _ in range(config.bottleneck_blocks)]
        self.bottleneck_out = conv(width, config.feature_channels, (1,), *types)
        self.levels = [
            [res_block(config, width, attends) for _ in range(config.decoder_blocks)]
            for width, attends in zip(config.channels, config.attention, strict=True)
        ]
        # ups[level] leads from level + 1 to level.
        self.ups = [
            Upsample(width, factors, *types)
            for width, factors in zip(config.channels, config.downsampling, strict=False)
        ]

    def __call__(
        self, latents: jax.Array, lengths: jax.Array | None = None
    ) -> tuple[jax.Array, ...]:
        """Latents `[B, T/8, 64]` to an activation a level, `[B, F, T, C]` at level 0 first."""
        frames = self.config.frames_of(lengths)
        x = self.conv_in(latents)
        for block in self.bottleneck:
            x = block(x, lengths=lengths)
        x = self.bottleneck_out(x)  # [B, T/8, 8192], frequency-major: index = f·256 + c
        x = x.reshape(*x.shape[:2], self.config.deepest_bins, -1)  # [B, T/8, F/32, C]
        x = x.swapaxes(1, 2)  # [B, F/32, T/8, C]
        pyramid = []
        for level in reversed(range(len(self.levels))):
            for block in self.levels[level]:
                x = block(x, lengths=frames[level])
            pyramid.append(x)
            if level > 0:
                x = self.ups[level - 1](x, frames[level])
        return tuple(reversed(pyramid))

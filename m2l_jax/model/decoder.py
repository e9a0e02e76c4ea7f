"""The decoder: latents in, the pyramid that conditions the UNet out."""

import jax

from m2l_jax.model import ops
from m2l_jax.model.layers import Conv, Part, Upsample


class Decoder(Part):
    """The encoder mirrored, without noise conditioning."""

    def setup(self):
        config = self.config
        width = config.bottleneck_channels
        self.conv_in = Conv(width, (1,), **self.options)
        self.bottleneck = self.blocks(config.bottleneck_blocks, width)
        self.bottleneck_out = Conv(config.feature_channels, (1,), **self.options)
        self.levels = self.block_levels(config.decoder_blocks)
        # ups[level] leads from level + 1 to level.
        self.ups = self.resampling(Upsample, config.widths)

    def __call__(self, latents: jax.Array, lengths: ops.Lengths = None) -> tuple[jax.Array, ...]:
        """Latents `[B, T/8, 64]` to an activation for each level, of level 0 first."""
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
                x = self.ups[level - 1](x, lengths=frames[level])
        return tuple(reversed(pyramid))

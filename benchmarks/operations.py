"""The multiplications of the model's definition, counted from its sizes.

An implementation that avoids some of them is faster by this count, not smaller. Norms, activations
and additions are not counted.
"""

import math

from m2l_jax.model.config import ModelConfig


def forward(config: ModelConfig, frames: int) -> dict[str, int]:
    """Multiply-adds of each of the three parts, forward, for one row of spectrogram frames.

    Args:
      config: the sizes.
      frames: T, a multiple of the model's time downsampling.
    """
    counts = _Counts(config, frames)
    return {'encoder': counts.encoder(), 'decoder': counts.decoder(), 'unet': counts.unet()}


def training_step(config: ModelConfig, frames: int) -> int:
    """Floating-point operations, two a multiply-add, of a training step for one crop.

    Encoder, decoder and student run forward and, at twice the work, backward; the teacher runs
    forward.
    """
    parts = forward(config, frames)
    return 2 * (3 * sum(parts.values()) + parts['unet'])


class _Counts:
    """Multiply-adds of layers for one row."""

    def __init__(self, config: ModelConfig, frames: int):
        self._config = config
        self._channels = config.widths
        bins, times = [config.spectrogram.bins], [frames]
        for frequency, time in config.downsampling:
            bins.append(bins[-1] // frequency)
            times.append(times[-1] // time)
        self._bins = bins
        self._positions = [f * t for f, t in zip(bins, times, strict=True)]
        self._latents = times[-1]

    def encoder(self) -> int:
        config, width = self._config, self._config.bottleneck_channels
        total = self._conv(0, 9, config.channels, self._channels[0])
        before = self._channels[0]
        for level, channels in enumerate(self._channels):
            total += self._block(level, before)
            total += (config.encoder_blocks - 1) * self._block(level, channels)
            before = channels
        for level in range(1, len(self._channels)):
            channels = self._channels[level - 1]
            total += self._conv(level, self._resampling_taps(level), channels, channels)
        into = config.feature_channels * width + width * config.latent_channels
        return total + self._latents * into + self._bottleneck()

    def decoder(self) -> int:
        config, width = self._config, self._config.bottleneck_channels
        into = config.latent_channels * width + width * config.feature_channels
        total = self._latents * into + self._bottleneck()
        for level, channels in enumerate(self._channels):
            total += config.decoder_blocks * self._block(level, channels)
        return total + self._upsampling()

    def unet(self) -> int:
        config, embedding = self._config, self._config.embedding_channels
        first = self._channels[0]
        # The MLPs of the noise level, and the convolutions at both ends.
        total = 6 * embedding**2 + 2 * embedding * config.spectrogram.bins
        total += 2 * self._conv(0, 9, config.channels, first) + self._conv(0, 1, first, first)
        for level, channels in enumerate(self._channels):
            block = self._block(level, channels) + embedding * channels
            total += 2 * config.unet_blocks * (block + self._conv(level, 1, channels, channels))
        for level in range(1, len(self._channels)):
            taps = self._resampling_taps(level)
            total += self._conv(level, taps, self._channels[level - 1], self._channels[level])
        return total + self._upsampling()

    def _upsampling(self) -> int:
        """From each level to the one above it, on the repeated values."""
        return sum(
            self._conv(
                level - 1,
                self._resampling_taps(level),
                self._channels[level],
                self._channels[level - 1],
            )
            for level in range(1, len(self._channels))
        )

    def _conv(self, level: int, taps: int, inputs: int, outputs: int) -> int:
        return self._positions[level] * taps * inputs * outputs

    def _resampling_taps(self, level: int) -> int:
        """Of the kernel between a level and the one above it."""
        factors = self._config.downsampling[level - 1]
        return math.prod(factor + 1 if factor > 1 else 1 for factor in factors)

    def _block(self, level: int, inputs: int) -> int:
        channels = self._channels[level]
        total = self._conv(level, 9, inputs, channels) + self._conv(level, 9, channels, channels)
        if inputs != channels:
            total += self._conv(level, 1, inputs, channels)
        if self._config.attention[level]:
            # Query, key, value and output, then logits and their sums of values.
            total += self._conv(level, 4, channels, channels)
            total += self._conv(level, 2, self._bins[level], channels)
        return total

    def _bottleneck(self) -> int:
        config = self._config
        return self._latents * config.bottleneck_blocks * 2 * 3 * config.bottleneck_channels**2

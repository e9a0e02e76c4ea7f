"""A small model with every part of the big one, and two blocks a level."""

import dataclasses

import pytest

from m2l_jax.audio.spectrogram import SpectrogramConfig
from m2l_jax.model.config import ModelConfig

CONFIG = ModelConfig(
    base_channels=8,
    channel_multipliers=(1, 2, 4),
    downsampling=((4, 1), (2, 2)),
    attention=(False, True, True),
    attention_heads=2,
    bottleneck_channels=32,
    bottleneck_blocks=2,
    latent_channels=8,
    embedding_channels=32,
    spectrogram=SpectrogramConfig(window=256, hop=64),
)
# For what both compute many times over, PyTorch one layer at a time.
SMALLER = dataclasses.replace(
    CONFIG,
    attention=(False, False, True),
    unet_blocks=1,
    bottleneck_blocks=1,
    spectrogram=SpectrogramConfig(window=128, hop=32),
)


def require_reference() -> None:
    """Skips the calling module, with the reason, where the package is not installed."""
    for package in ('torch', 'music2latent'):
        pytest.importorskip(package, reason=f'{package} is missing: pip install -e .[torch]')

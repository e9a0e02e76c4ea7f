"""A model that a command compiles in seconds, and as overrides of a training's config."""

from m2l_jax.audio.spectrogram import SpectrogramConfig
from m2l_jax.model.config import ModelConfig

MODEL = ModelConfig(
    base_channels=4,
    channel_multipliers=(1, 2),
    downsampling=((2, 2),),
    attention=(False, False),
    unet_blocks=1,
    bottleneck_channels=8,
    bottleneck_blocks=1,
    latent_channels=5,
    embedding_channels=8,
    spectrogram=SpectrogramConfig(window=256, hop=64),
)

FLAGS = (
    '--config.init_from=',
    '--config.train.steps=3',
    '--config.train.checkpoint_every=2',
    '--config.train.log_every=1',
    '--config.optimizer.warmup_steps=1',
    '--config.data.batch_size=2',
    '--config.data.crop_frames=8',
    '--config.model.base_channels=4',
    '--config.model.channel_multipliers=(1, 1)',
    '--config.model.downsampling=((4, 1),)',
    '--config.model.attention=(False, False)',
    '--config.model.unet_blocks=1',
    '--config.model.bottleneck_blocks=1',
)

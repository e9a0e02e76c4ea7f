"""A model as small as one can be that has every part, for what is not about the model."""

import os

import jax
import numpy as np

from m2l_jax.model.autoencoder import Music2Latent, Params
from m2l_jax.model.config import ModelConfig
from m2l_jax.torch_weights.conversion import save_torch_model

CONFIG = ModelConfig(
    base_channels=4,
    channel_multipliers=(1, 2, 2),
    downsampling=((4, 1), (2, 2)),
    attention=(False, False, True),
    attention_heads=2,
    encoder_blocks=1,
    decoder_blocks=1,
    unet_blocks=1,
    bottleneck_channels=16,
    bottleneck_blocks=1,
    latent_channels=8,
    embedding_channels=16,
)


def random_params(config: ModelConfig = CONFIG) -> Params:
    """Its parameters, of which none is zero."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(Music2Latent(config).init_params, jax.random.key(0))
    return jax.tree.map(lambda leaf: 0.1 * random.standard_normal(leaf.shape, np.float32), shapes)


def save(path: str | os.PathLike[str]) -> None:
    """Writes it, with those parameters, to a `.safetensors` file."""
    save_torch_model(path, CONFIG, random_params())

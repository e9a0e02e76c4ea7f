"""A model that computes next to nothing, and a corpus of sounds with broken files among them."""

import pathlib
import random

import jax
import numpy as np
import soundfile

from benchmarks.mutated_audio import write_mutations
from m2l_jax.audio.spectrogram import SpectrogramConfig
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.model.config import ModelConfig
from m2l_jax.torch_weights.conversion import save_torch_model

_SMALL = ModelConfig(
    base_channels=4,
    channel_multipliers=(1, 1, 2, 2),
    downsampling=((2, 2), (2, 2), (2, 2)),
    attention=(False, False, False, True),
    encoder_blocks=1,
    decoder_blocks=1,
    unet_blocks=1,
    bottleneck_channels=32,
    bottleneck_blocks=1,
    latent_channels=8,
    embedding_channels=16,
    spectrogram=SpectrogramConfig(window=2048, hop=512),
)

# Suffix and subtype; a name's own suffix tells soundfile the rest.
_KINDS = (
    ('.wav', 'PCM_16'),
    ('.wav', 'PCM_24'),
    ('.flac', 'PCM_16'),
    ('.ogg', 'VORBIS'),
    ('.mp3', 'MPEG_LAYER_III'),
)
_RATES = (16_000, 22_050, 32_000, 44_100, 48_000)
_FOLDERS = ('', 'album', 'album/second disc', 'größe')


def write_model(path: pathlib.Path, seed: int = 0) -> None:
    """Writes a very small model with random weights, `.safetensors`."""
    draw = np.random.default_rng(seed)
    shapes = jax.eval_shape(Music2Latent(_SMALL).init_params, jax.random.key(0))
    weights = jax.tree.map(lambda leaf: draw.standard_normal(leaf.shape, np.float32), shapes)
    save_torch_model(path, _SMALL, weights)


def write_audio(
    folder: pathlib.Path, count: int, broken: int, seconds: float, seed: int = 0
) -> None:
    """Writes sounds of random lengths, rates, channels and kinds, and broken files.

    Args:
      folder: for them, and for folders of them.
      count: sounds.
      broken: files of `mutated_audio`, of which some can be read.
      seconds: the longest.
      seed: of everything.
    """
    chance, draw = random.Random(seed), np.random.default_rng(seed)
    for number in range(count):
        suffix, subtype = chance.choice(_KINDS)
        rate = chance.choice(_RATES)
        shape = (int(chance.uniform(0.1, seconds) * rate), chance.choice((1, 2)))
        path = folder / chance.choice(_FOLDERS) / f'{number:04d}{suffix}'
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, draw.uniform(-0.5, 0.5, shape), rate, subtype)
    write_mutations(folder / 'broken', seed, broken)

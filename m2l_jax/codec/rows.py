"""The codec's computations on a device: pure functions of batches of rows.

A row is one channel of one chunk, or both of stereo, padded to the batch's length. Outputs within
`lengths`, counted in latent vectors, don't depend on padding; beyond it they are undefined.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from m2l_jax.audio.planes import from_planes, to_planes
from m2l_jax.consistency.keys import random_key
from m2l_jax.consistency.sampler import sample
from m2l_jax.model.autoencoder import Music2Latent, Params
from m2l_jax.model.config import ModelConfig


def encode_waveforms(
    model: Music2Latent,
    params: Params,
    waveforms: jax.Array,
    splits: jax.Array,
    lengths: jax.Array,
    method: str = 'encode',
) -> jax.Array:
    """Encodes waveforms to latents `[B, 64, L]` of unit variance on music, or to features.

    A row has one or two pieces; the second completes the chunk. Each piece has the `reach` samples
    that its last frame covers beyond its last latent vector.

    Args:
      model, params: the model.
      waveforms: `[B, waveform_samples(config, L)]`, or of stereo `[B, 2, …]`.
      splits: `[B]`, latent vectors in the first piece.
      lengths: `[B]`, latent vectors in both.
      method: 'encode', or 'features' for those before the bottleneck, `[B, 8192, L]`, unscaled.
    """
    config = model.config
    reach = config.spectrogram.reach // config.spectrogram.hop
    spectrogram = to_planes(waveforms, config.spectrogram, config.layout)  # [B, F, T + reach, C]
    frames = spectrogram.shape[2] - reach
    # Frames that hold samples of both pieces are left out.
    is_first = jnp.arange(frames) < splits[:, None] * config.time_downsampling  # [B, T]
    spectrogram = jnp.where(
        is_first[:, None, :, None], spectrogram[:, :, :frames], spectrogram[:, :, reach:]
    )
    encoded = _apply(model, params, spectrogram, lengths, method=method)
    encoded = encoded.swapaxes(1, 2)  # [B, C, L]
    return encoded / config.latent_scale if method == 'encode' else encoded


def decode_waveforms(
    model: Music2Latent,
    params: Params,
    latents: jax.Array,
    keys: jax.Array,
    positions: jax.Array,
    lengths: jax.Array,
    kept: jax.Array,
    steps: int,
) -> jax.Array:
    """Decodes latents `[B, 64, L]` to waveforms `[B, 4096·L + 1536]`, not clipped.

    Of stereo, they are `[B, 2, 4096·L + 1536]`.

    Args:
      model, params: the model.
      latents: as `encode_waveforms` returns them.
      keys: `[B]`, of each row's noise.
      positions: `[B, L]`, of each latent vector in the whole that the row is a chunk of.
      lengths: `[B]`, latent vectors in each row.
      kept: `[B]`, latent vectors whose audio is wanted; the others become silence.
      steps: evaluations of the model.
    """
    config = model.config
    scaled = latents.swapaxes(1, 2) * config.latent_scale  # [B, L, 64]
    pyramid = _apply(model, params, scaled, lengths, method='pyramid')

    def denoise(noisy: jax.Array, sigma: jax.Array) -> jax.Array:
        return _apply(model, params, noisy, sigma, pyramid, lengths, method='denoise')

    draw_noise = functools.partial(decoding_noise, config, keys, positions)
    spectrogram = sample(denoise, draw_noise, config.noise, steps)  # [B, F, T, C]
    is_kept = jnp.arange(spectrogram.shape[2]) < kept[:, None] * config.time_downsampling  # [B, T]
    kept_part = jnp.where(is_kept[:, None, :, None], spectrogram, 0)
    return from_planes(kept_part, config.spectrogram, config.layout)


def decoding_noise(
    config: ModelConfig, keys: jax.Array, positions: jax.Array, step: int | jax.Array
) -> jax.Array:
    """Draws the Gaussian noise of a sampling step, `[B, F, 8·L, C]`.

    A latent vector's noise depends only on its key `[B]` and position `[B, L]`: overlapping chunks
    share it, and padding changes nothing. Steps count from 0.
    """
    shape = (config.spectrogram.bins, config.time_downsampling, config.channels)

    def draw(key: jax.Array, position: jax.Array) -> jax.Array:
        return jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, position), step), shape)

    noise = jax.vmap(jax.vmap(draw, (None, 0)))(keys, positions)  # [B, L, F, 8, C]
    noise = noise.swapaxes(1, 2)  # [B, F, L, 8, C]
    return noise.reshape(*noise.shape[:2], -1, config.channels)  # [B, F, 8·L, C]


def channel_key(seed: int, channel: int) -> jax.Array:
    """The key of an audio channel's decoding noise."""
    return jax.random.fold_in(random_key(seed), channel)


def waveform_samples(config: ModelConfig, latents: int) -> int:
    """Samples in a row of `encode_waveforms` of `latents` vectors."""
    return latents * config.samples_per_latent + 2 * config.spectrogram.reach


def _apply(model: Music2Latent, params: Params, *inputs: Any, method: str) -> Any:
    # By default, TPUs and GPUs multiply float32 with fewer bits.
    precision = 'highest' if model.config.dtype == 'float32' else 'default'
    with jax.default_matmul_precision(precision):
        return model.apply({'params': params}, *inputs, method=method)

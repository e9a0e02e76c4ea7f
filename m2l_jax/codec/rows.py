"""What encoding and decoding compute on a device: pure functions of batches of rows.

A row is one channel of one chunk. Rows are as long as their array, or `lengths` `[B]` says how many
latent vectors of each count.
"""

from typing import Any

import jax
import jax.numpy as jnp

from m2l_jax.audio.spectrogram import synthesise, to_spectrogram
from m2l_jax.consistency.keys import random_key
from m2l_jax.consistency.sampler import sample
from m2l_jax.model.autoencoder import Music2Latent, Params
from m2l_jax.model.config import ModelConfig


def encode_rows(
    model: Music2Latent,
    params: Params,
    spectrogram: jax.Array,
    lengths: jax.Array | None = None,
    method: str = 'encode',
) -> jax.Array:
    """Spectrograms `[B, F, T, 2]` to latents `[B, 64, T/8]` of unit variance on music.

    Args:
      model: and its `params`.
      spectrogram: a chunk of audio a row.
      lengths: `[B]`, see above.
      method: 'encode', or 'features' for those before the bottleneck, `[B, 8192, T/8]`, unscaled.
    """
    encoded = _apply(model, params, spectrogram, lengths, method=method)
    encoded = encoded.swapaxes(1, 2)  # [B, C, T/8]
    return encoded / model.config.latent_scale if method == 'encode' else encoded


def encode_waveforms(
    model: Music2Latent,
    params: Params,
    waveforms: jax.Array,
    splits: jax.Array,
    lengths: jax.Array,
    method: str = 'encode',
) -> jax.Array:
    """Waveforms to what `encode_rows` gives, `[B, C, L]`.

    A row may be of two pieces, of which the second completes the chunk. Each piece has the samples
    that its last frame reaches beyond its last latent vector's.

    Args:
      model: and its `params`.
      waveforms: `[B, waveform_samples(config, L)]`.
      splits: `[B]`, latent vectors in the first piece.
      lengths: `[B]`, latent vectors in both.
      method: see `encode_rows`.
    """
    config = model.config
    reach = config.spectrogram.reach // config.spectrogram.hop
    spectrogram = to_spectrogram(waveforms, config.spectrogram)  # [B, F, T + reach, 2]
    frames = spectrogram.shape[2] - reach
    # Frames that hold samples of both pieces are left out.
    is_first = jnp.arange(frames) < splits[:, None] * config.time_downsampling  # [B, T]
    spectrogram = jnp.where(
        is_first[:, None, :, None], spectrogram[:, :, :frames], spectrogram[:, :, reach:]
    )
    return encode_rows(model, params, spectrogram, lengths, method)


def decode_rows(
    model: Music2Latent,
    params: Params,
    latents: jax.Array,
    keys: jax.Array,
    positions: jax.Array,
    steps: int,
    lengths: jax.Array | None = None,
) -> jax.Array:
    """Latents `[B, 64, L]` to spectrograms `[B, F, 8·L, 2]`, float32.

    Args:
      model: and its `params`.
      latents: as `encode_rows` gives them.
      keys: `[B]`, of the noise that each row is decoded from.
      positions: `[B, L]`, of each latent vector in what the row is a chunk of.
      steps: evaluations of the model.
      lengths: `[B]`, see above.
    """
    scaled = latents.swapaxes(1, 2) * model.config.latent_scale
    pyramid = _apply(model, params, scaled, lengths, method='pyramid')
    return sample(
        lambda noisy, sigma: _apply(
            model, params, noisy, sigma, pyramid, lengths, method='denoise'
        ),
        lambda step: decoding_noise(model.config, keys, positions, step),
        model.config.noise,
        steps,
    )


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
    """Latents `[B, 64, L]` to waveforms `[B, 4096·L + 1536]`, not clipped.

    Args:
      model, params, latents, keys, positions, lengths, steps: see `decode_rows`.
      kept: `[B]`, the latent vectors whose audio is wanted; that of the others is left out.
    """
    config = model.config
    spectrogram = decode_rows(model, params, latents, keys, positions, steps, lengths)
    is_kept = jnp.arange(spectrogram.shape[2]) < kept[:, None] * config.time_downsampling  # [B, T]
    return synthesise(jnp.where(is_kept[:, None, :, None], spectrogram, 0), config.spectrogram)


def decoding_noise(
    config: ModelConfig, keys: jax.Array, positions: jax.Array, step: int | jax.Array
) -> jax.Array:
    """The Gaussian noise of a sampling step, `[B, F, 8·L, 2]`.

    A latent vector's depends on its position in the whole alone, so that chunks that overlap begin
    from the same noise there, and padding changes nothing.

    Args:
      config: the model's.
      keys: `[B]`.
      positions: `[B, L]`.
      step: of sampling, from 0.
    """
    shape = (config.spectrogram.bins, config.time_downsampling, config.channels)

    def draw(key: jax.Array, position: jax.Array) -> jax.Array:
        return jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, position), step), shape)

    noise = jax.vmap(jax.vmap(draw, (None, 0)))(keys, positions)  # [B, L, F, 8, 2]
    noise = noise.swapaxes(1, 2)  # [B, F, L, 8, 2]
    return noise.reshape(*noise.shape[:2], -1, config.channels)


def channel_key(seed: int, channel: int) -> jax.Array:
    """The key of an audio channel's decoding noise."""
    return jax.random.fold_in(random_key(seed), channel)


def waveform_samples(config: ModelConfig, latents: int) -> int:
    """Samples of a row of `encode_waveforms` of so many latent vectors, in two pieces at most."""
    return latents * config.samples_per_latent + 2 * config.spectrogram.reach


def _apply(model: Music2Latent, params: Params, *inputs: Any, method: str) -> Any:
    # Left alone, TPUs and GPUs multiply float32 in fewer bits.
    precision = 'highest' if model.config.dtype == 'float32' else 'default'
    with jax.default_matmul_precision(precision):
        return model.apply({'params': params}, *inputs, method=method)

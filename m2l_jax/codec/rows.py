"""What encoding and decoding compute on a device: pure functions of batches of rows."""

from typing import Any

import jax

from m2l_jax.consistency.sampler import sample
from m2l_jax.model.autoencoder import Music2Latent, Params

LATENT_SCALE = 0.06  # standard deviation of the released model's latents on music


def encode_rows(
    model: Music2Latent, params: Params, spectrogram: jax.Array, method: str = 'encode'
) -> jax.Array:
    """Spectrograms `[B, F, T, 2]` to latents `[B, 64, T/8]` of unit variance on music.

    Args:
      model: and its `params`.
      spectrogram: a chunk of audio a row.
      method: 'encode', or 'features' for those before the bottleneck, `[B, 8192, T/8]`, unscaled.
    """
    encoded = _apply(model, params, spectrogram, method=method)
    encoded = encoded.swapaxes(1, 2)  # [B, C, T/8]
    return encoded / LATENT_SCALE if method == 'encode' else encoded


def decode_rows(
    model: Music2Latent, params: Params, latents: jax.Array, keys: jax.Array, steps: int
) -> jax.Array:
    """Latents `[B, 64, T/8]` to spectrograms `[B, F, T, 2]`, float32.

    Args:
      model: and its `params`.
      latents: as `encode_rows` gives them.
      keys: of the noise that each row is decoded from, `[B]`.
      steps: evaluations of the model.
    """
    pyramid = _apply(model, params, latents.swapaxes(1, 2) * LATENT_SCALE, method='pyramid')
    frames = latents.shape[2] * model.config.time_downsampling
    return sample(
        lambda noisy, sigma: _apply(model, params, noisy, sigma, pyramid, method='denoise'),
        keys,
        (model.config.spectrogram.bins, frames, 2),
        model.config.noise,
        steps,
    )


def _apply(model: Music2Latent, params: Params, *inputs: Any, method: str) -> Any:
    # Left alone, TPUs and GPUs multiply float32 in fewer bits.
    precision = 'highest' if model.config.dtype == 'float32' else 'default'
    with jax.default_matmul_precision(precision):
        return model.apply({'params': params}, *inputs, method=method)

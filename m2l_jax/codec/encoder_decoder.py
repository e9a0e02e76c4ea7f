"""Waveforms in, latents out, and back."""

import copy
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np

from m2l_jax.audio.spectrogram import to_spectrogram, to_waveform
from m2l_jax.checkpoint.store import load_model
from m2l_jax.consistency.sampler import sample
from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import Music2Latent, Params

_CHUNK_SECONDS = 60  # as in the reference: longer audio is cut, for the memory's sake
# Standard deviation of the released model's latents on music.
_LATENT_SCALE = 0.06


class EncoderDecoder:
    """A model with its parameters, compiled once for each length of audio that it meets.

    Channels are independent: each is a row of the batch. Audio longer than a minute is encoded and
    decoded a minute at a time.
    """

    def __init__(self, model: Music2Latent, params: Params):
        self.config = model.config
        self._model = model
        self._params = params
        self._encode = jax.jit(self._encode_chunk)
        self._decode = jax.jit(self._decode_chunk, static_argnames='steps')

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str]) -> 'EncoderDecoder':
        """The newest checkpoint of a training run, with the averaged parameters.

        Raises:
          InputError: if there is none.
        """
        return cls(*load_model(path))

    def with_params(self, params: Params) -> 'EncoderDecoder':
        """The same model with other parameters; what is compiled is shared."""
        other = copy.copy(self)
        other._params = params
        return other

    @functools.cached_property
    def samples_per_latent(self) -> int:
        """Audio samples from one latent vector to the next, 4096 at full size."""
        return self.config.time_downsampling * self.config.spectrogram.hop

    def pad(self, waveform: np.ndarray) -> np.ndarray:
        """Appends the silence that lets `encode` drop nothing of `[channels, samples]`."""
        samples = waveform.shape[1]
        filled = -(-samples // self.samples_per_latent) * self.samples_per_latent
        return np.pad(waveform, ((0, 0), (0, filled + self._overlap - samples)))

    def encode(self, waveform: np.ndarray) -> np.ndarray:
        """Encodes a waveform; samples after the last whole latent vector are dropped.

        Args:
          waveform: `[channels, samples]`, float32, at the model's sample rate.

        Returns:
          Latents `[channels, 64, frames]`, float32, scaled to unit variance on music.

        Raises:
          InputError: for another shape, too few samples, or samples that are not finite.
        """
        self._check_waveform(waveform)
        frames = (waveform.shape[1] - self._overlap) // self.samples_per_latent
        pieces = []
        for begin in range(0, frames, self._latents_per_chunk):
            end = min(begin + self._latents_per_chunk, frames)
            first, last = begin * self.samples_per_latent, end * self.samples_per_latent
            piece = self._encode(self._params, waveform[:, first : last + self._overlap])
            pieces.append(np.asarray(piece))
        return np.concatenate(pieces, axis=-1)

    def decode(self, latents: np.ndarray, denoising_steps: int = 1, seed: int = 0) -> np.ndarray:
        """Decodes latents; the same seed gives the same samples.

        Args:
          latents: `[channels, 64, frames]`, as `encode` returns them.
          denoising_steps: evaluations of the model; one is what it was trained for.
          seed: of the noise that decoding starts from.

        Returns:
          `[channels, 4096·frames + 1536]`, float32 in [-1, 1], at the model's sample rate.
        """
        key = jax.random.key(seed)
        pieces = []
        for number, begin in enumerate(range(0, latents.shape[-1], self._latents_per_chunk)):
            chunk = jnp.asarray(latents[..., begin : begin + self._latents_per_chunk])
            chunk_key = jax.random.fold_in(key, number)
            pieces.append(
                np.asarray(self._decode(self._params, chunk, chunk_key, steps=denoising_steps))
            )
        return to_waveform(np.concatenate(pieces, axis=2), self.config.spectrogram)

    @functools.cached_property
    def _overlap(self) -> int:
        """Samples that the last frame reaches beyond its hop."""
        return self.config.spectrogram.window - self.config.spectrogram.hop

    @functools.cached_property
    def _latents_per_chunk(self) -> int:
        return _CHUNK_SECONDS * self.config.spectrogram.sample_rate // self.samples_per_latent

    def _encode_chunk(self, params: Params, waveform: jax.Array) -> jax.Array:
        spectrogram = to_spectrogram(waveform, self.config.spectrogram)
        latents = self._model.apply({'params': params}, spectrogram, method='encode')
        return latents.swapaxes(1, 2) / _LATENT_SCALE  # [B, 64, T/8]

    def _decode_chunk(
        self, params: Params, latents: jax.Array, key: jax.Array, steps: int
    ) -> jax.Array:
        apply = functools.partial(self._model.apply, {'params': params})
        pyramid = apply(latents.swapaxes(1, 2) * _LATENT_SCALE, method='pyramid')
        frames = latents.shape[2] * self.config.time_downsampling
        return sample(
            lambda noisy, sigma: apply(noisy, sigma, pyramid, method='denoise'),
            key,
            (latents.shape[0], self.config.spectrogram.bins, frames, 2),
            self.config.noise,
            steps,
        )

    def _check_waveform(self, waveform: np.ndarray) -> None:
        if waveform.ndim != 2:
            raise InputError(f'audio has shape {waveform.shape}; it must be [channels, samples]')
        least = self.samples_per_latent + self._overlap
        if waveform.shape[1] < least:
            raise InputError(f'{waveform.shape[1]} samples are too few to encode: {least} at least')
        if not np.all(np.isfinite(waveform)):
            raise InputError('audio holds NaN or infinite samples: mend it before encoding')

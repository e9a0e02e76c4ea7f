"""Waveforms in, latents out, and back."""

import copy
import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from m2l_jax.audio.spectrogram import to_spectrogram, to_waveform
from m2l_jax.codec.arrays import as_latents, as_waveform
from m2l_jax.codec.chunks import Piece, cut
from m2l_jax.codec.rows import decode_rows, encode_rows
from m2l_jax.codec.weights import open_weights
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.settings import differences
from m2l_jax.model.autoencoder import Music2Latent, Params
from m2l_jax.model.config import ModelConfig

_CHUNK_SECONDS = 60
_ROWS_AT_ONCE = 1

Row = tuple[int, int]  # chunk and audio channel


class EncoderDecoder:
    """A model with its parameters, compiled once for each length of audio that it meets.

    A drop-in for the class of that name in the PyTorch package: `encode` and `decode` have the same
    arguments, shapes, scale, cropping and chunks. Audio channels are independent rows. Audio longer
    than a chunk is cut, with hard seams, and the last chunk completed from the start of the audio;
    what that adds is cut off again.

    Args:
      checkpoint: folder of a training run or a conversion, `.pt` or `.safetensors` file. Without
        one the authors' released weights are fetched once; these are CC BY-NC 4.0.
      dtype: of the computation, whatever the model was trained in: 'float32', in full on
        accelerators too, or 'bfloat16', much faster there.

    Raises:
      InputError: if the checkpoint cannot be read, or not be fetched.
    """

    def __init__(self, checkpoint: str | os.PathLike[str] | None = None, *, dtype: str = 'float32'):
        self._set_model(*open_weights(checkpoint), dtype)

    @classmethod
    def from_params(
        cls, model: Music2Latent, params: Params, *, dtype: str = 'float32'
    ) -> 'EncoderDecoder':
        """Of a model in memory."""
        codec = cls.__new__(cls)
        codec._set_model(model, params, dtype)
        return codec

    def with_params(self, params: Params) -> 'EncoderDecoder':
        """The same model with other parameters; what is compiled is shared."""
        other = copy.copy(self)
        other.params = jax.tree.map(jnp.asarray, params)
        other.__dict__.pop('model_id', None)
        return other

    def _set_model(self, model: Music2Latent, params: Params, dtype: str) -> None:
        self.config = dataclasses.replace(model.config, dtype=dtype)
        self.params = jax.tree.map(jnp.asarray, params)
        self._model = Music2Latent(self.config)
        self._to_spectrogram = jax.jit(
            lambda waveform: to_spectrogram(waveform, self.config.spectrogram)
        )
        self._encode_rows = jax.jit(
            functools.partial(encode_rows, self._model), static_argnames='method'
        )
        self._decode_rows = jax.jit(
            functools.partial(decode_rows, self._model), static_argnames='steps'
        )

    @functools.cached_property
    def samples_per_latent(self) -> int:
        """Audio samples from one latent vector to the next, 4096 at full size."""
        return self.config.time_downsampling * self.config.spectrogram.hop

    @functools.cached_property
    def least_samples(self) -> int:
        """The shortest audio that can be encoded, 5632 samples at full size."""
        return self.samples_per_latent + self._overlap

    @functools.cached_property
    def model_id(self) -> str:
        """A fingerprint of sizes and parameters, to tell which model latents are of."""
        # Only what is not the default, so that a field added later leaves old fingerprints as they
        # are; and not the precision, in which the same model can be computed.
        default = ModelConfig(dtype=self.config.dtype)
        digest = hashlib.sha256('; '.join(differences(default, self.config)).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.params):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.asarray(leaf, np.float32).tobytes())
        return digest.hexdigest()[:16]

    def pad(self, waveform: np.ndarray) -> np.ndarray:
        """Appends the silence that lets `encode` drop nothing of `[channels, samples]`."""
        samples = waveform.shape[1]
        filled = -(-samples // self.samples_per_latent) * self.samples_per_latent
        return np.pad(waveform, ((0, 0), (0, filled + self._overlap - samples)))

    def encode(
        self,
        path_or_audio: Any,
        max_waveform_length: int | None = None,
        max_batch_size: int | None = None,
        extract_features: bool = False,
    ) -> np.ndarray:
        """Encodes audio; samples after the last whole latent vector are dropped.

        Args:
          path_or_audio: a file (resampled if its rate is not the model's), or `[channels, samples]`
            or `[samples]`, floating point, at the model's sample rate, of NumPy, JAX or PyTorch.
          max_waveform_length: samples in a chunk; a minute if None. It changes the latents:
            normalisation pools over the chunk.
          max_batch_size: rows (chunks times channels) that are encoded at once; 1 if None. It does
            not change the latents.
          extract_features: returns the features before the bottleneck instead.

        Returns:
          Latents `[channels, 64, frames]`, float32, scaled to unit variance on music; or features
          `[channels, 8192, frames]`, not scaled.

        Raises:
          InputError: for a file that cannot be read, another shape, integers, too few samples, or
            samples that are not finite; and if the model itself gives NaN.
        """
        waveform = as_waveform(path_or_audio, self.config.spectrogram.sample_rate)
        if waveform.shape[1] < self.least_samples:
            raise InputError(
                f'{waveform.shape[1]} samples are too few to encode: {self.least_samples} at least'
            )
        latents = (waveform.shape[1] - self._overlap) // self.samples_per_latent
        chunks = cut(latents, self._latents_in_chunk(max_waveform_length))
        method = 'features' if extract_features else 'encode'
        encoded = [
            self._encode_rows(
                self.params,
                jnp.stack([self._spectrogram(waveform[row], chunks[chunk]) for chunk, row in rows]),
                method=method,
            )
            for rows in _batches(len(chunks), len(waveform), max_batch_size)
        ]
        return _check_finite(_join(encoded, len(waveform))[..., :latents])

    def decode(
        self,
        latent: Any,
        denoising_steps: int = 1,
        max_waveform_length: int | None = None,
        max_batch_size: int | None = None,
        seed: int = 0,
    ) -> np.ndarray:
        """Decodes latents; the same seed gives the same samples.

        Args:
          latent: `[channels, 64, frames]` or `[64, frames]`, as `encode` returns them.
          denoising_steps: evaluations of the model; one is what it was trained for.
          max_waveform_length: samples in a chunk; a minute if None.
          max_batch_size: rows (chunks times channels) that are decoded at once; 1 if None.
          seed: of the noise that decoding starts from.

        Returns:
          `[channels, 4096·frames + 1536]`, float32 in [-1, 1], at the model's sample rate.

        Raises:
          InputError: for another shape, integers, or numbers that are not finite; and if the model
            itself gives NaN.
        """
        latents = as_latents(latent, self.config.latent_channels)
        if denoising_steps < 1:
            raise InputError(f'denoising_steps={denoising_steps} must be at least 1')
        frames = latents.shape[2]
        chunks = cut(frames, self._latents_in_chunk(max_waveform_length))
        decoded = []
        for rows in _batches(len(chunks), len(latents), max_batch_size):
            pieces = [_gather(latents[channel], chunks[chunk]) for chunk, channel in rows]
            decoded.append(
                self._decode_rows(
                    self.params, np.stack(pieces), row_keys(seed, rows), steps=denoising_steps
                )
            )
        spectrogram = _join([rows.swapaxes(2, 3) for rows in decoded], len(latents)).swapaxes(2, 3)
        used = spectrogram[:, :, : frames * self.config.time_downsampling]
        return to_waveform(_check_finite(used), self.config.spectrogram)

    @functools.cached_property
    def _overlap(self) -> int:
        """Samples that the last frame reaches beyond its hop."""
        return self.config.spectrogram.window - self.config.spectrogram.hop

    def _latents_in_chunk(self, max_waveform_length: int | None) -> int:
        if max_waveform_length is None:
            max_waveform_length = _CHUNK_SECONDS * self.config.spectrogram.sample_rate
        if max_waveform_length < self.samples_per_latent:
            raise InputError(
                f'max_waveform_length={max_waveform_length} must be at least '
                f'{self.samples_per_latent} samples'
            )
        return max_waveform_length // self.samples_per_latent

    def _spectrogram(self, waveform: np.ndarray, pieces: list[Piece]) -> jax.Array:
        """A chunk's `[F, T, 2]` of a row's `[samples]`; pieces count latents."""
        step = self.samples_per_latent
        return jnp.concatenate(
            [
                self._to_spectrogram(waveform[begin * step : end * step + self._overlap])
                for begin, end in pieces
            ],
            axis=1,
        )


def row_keys(seed: int, rows: list[Row]) -> jax.Array:
    """A key for the decoding noise of each (chunk, audio channel), `[B]`."""
    key = jax.random.key(seed)
    return jnp.stack(
        [jax.random.fold_in(jax.random.fold_in(key, chunk), channel) for chunk, channel in rows]
    )


def _batches(chunks: int, channels: int, size: int | None) -> Iterator[list[Row]]:
    """Every channel of every chunk, in lists of at most `size`."""
    size = _ROWS_AT_ONCE if size is None else size
    if size < 1:
        raise InputError(f'max_batch_size={size} must be at least 1')
    rows = [(chunk, channel) for chunk in range(chunks) for channel in range(channels)]
    return (rows[begin : begin + size] for begin in range(0, len(rows), size))


def _check_finite(array: np.ndarray) -> np.ndarray:
    """The same array, unless the model has made NaN of finite numbers."""
    if not np.all(np.isfinite(array)):
        raise InputError('the model gives NaN: its training diverged, use another checkpoint')
    return array


def _gather(array: np.ndarray, pieces: list[Piece]) -> np.ndarray:
    return np.concatenate([array[..., begin:end] for begin, end in pieces], axis=-1)


def _join(batches: list[jax.Array], channels: int) -> np.ndarray:
    """Batches of rows `[B, ..., T]`, chunk after chunk, to `[channels, ..., chunks·T]`."""
    rows = np.concatenate([np.asarray(batch) for batch in batches])
    rows = rows.reshape(-1, channels, *rows.shape[1:])  # [chunks, channels, ..., T]
    rows = np.moveaxis(rows, 0, -2)  # [channels, ..., chunks, T]
    return rows.reshape(*rows.shape[:-2], -1)

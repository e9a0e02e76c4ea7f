"""Encodes waveforms to latents and decodes them back."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from m2l_jax.codec.arrays import (
    as_latents,
    as_pieces,
    as_waveform,
    as_whole,
    check_decoded,
    check_encoded,
)
from m2l_jax.codec.batches import join_channels, latent_rows
from m2l_jax.codec.chunks import join_latents
from m2l_jax.codec.placement import choose_devices
from m2l_jax.codec.streaming import StreamingCodec
from m2l_jax.codec.tokens import TokenCodec
from m2l_jax.codec.weights import locate_pretrained, open_weights
from m2l_jax.interface.devices import standard_jax
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.progress import shown
from m2l_jax.interface.settings import LARGEST_SEED
from m2l_jax.model.autoencoder import Music2Latent, Params


class EncoderDecoder(TokenCodec, StreamingCodec):
    """A model with its parameters, compiled once for each of the few lengths that it pads to.

    A drop-in for the class of that name in the PyTorch package: `encode` and `decode` have the same
    arguments, shapes, scale, cropping and chunks. Audio channels are independent rows, and a stereo
    model's two are one row with one latent sequence. Padding is masked. Threads may share an
    instance; processes, if spawned and not forked, get a pickled copy.

    Args:
      checkpoint: folder of a training run or a conversion, `.pt` or `.safetensors` file,
        'hf://user/model' for one of the Hugging Face Hub, or 'small' for the model that comes with
        this package (`./small` is a folder). Without one the authors' released weights are fetched
        once; these are CC BY-NC 4.0.
      device: one of JAX's, or a name as PyTorch has it: 'cpu', 'cuda', 'cuda:1'; None for JAX's
        default one.
      dtype: of the computation, independent of training: 'float32', in full precision on
        accelerators too, or 'bfloat16', much faster there. A CPU computes 'bfloat16' in float32
        but for some products, if it multiplies bfloat16 faster.
      devices: share the rows, in place of `device`.
      load_path_inference: the PyTorch package's name of `checkpoint`.
      progress: shows a bar while `encode`, `decode` and the like take longer than 2 s; without a
        terminal, logs a line every 30 s.

    Raises:
      InputError: if the checkpoint cannot be read or fetched, or a device is not there.
    """

    _progress = False

    @standard_jax()
    def __init__(
        self,
        checkpoint: str | os.PathLike[str] | None = None,
        device: Any = None,
        *,
        dtype: str = 'float32',
        devices: Sequence[jax.Device] | None = None,
        load_path_inference: str | os.PathLike[str] | None = None,
        progress: bool = False,
    ):
        if checkpoint is not None and load_path_inference is not None:
            raise InputError('load_path_inference and checkpoint are one: pass only one of them')
        chosen = choose_devices(device, devices)
        model, params = open_weights(load_path_inference if checkpoint is None else checkpoint)
        self._set_model(dataclasses.replace(model.config, dtype=dtype), params, chosen)
        self._progress = progress

    @classmethod
    def from_pretrained(
        cls, model: str | os.PathLike[str], revision: str | None = None, **options: Any
    ) -> 'EncoderDecoder':
        """A codec of a model of the Hugging Face Hub, fetched once, or of a local folder or file.

        Args:
          model: 'user/model', 'user/model@revision', or a path.
          revision: branch, tag or commit in the Hub; None for the main branch.
          options: the constructor's: `device`, `dtype`, `devices`, `progress`.

        Raises:
          InputError: if the model cannot be fetched or read, or a device is not there.
        """
        return cls(locate_pretrained(model, revision), **options)

    @classmethod
    @standard_jax()
    def from_params(
        cls,
        model: Music2Latent,
        params: Params,
        *,
        dtype: str = 'float32',
        devices: Sequence[jax.Device] | None = None,
    ) -> 'EncoderDecoder':
        """A codec of a model in memory."""
        codec = cls.__new__(cls)
        config = dataclasses.replace(model.config, dtype=dtype)
        codec._set_model(config, params, choose_devices(None, devices))
        return codec

    @property
    def least_samples(self) -> int:
        """The shortest audio that can be encoded, 5632 samples at full size."""
        return self.samples_per_latent + self.reach

    def pad(self, path_or_audio: Any) -> np.ndarray:
        """Appends silence to audio so that `encode` drops nothing: `[channels, samples]`."""
        waveform = self._open(path_or_audio)
        samples = waveform.shape[1]
        return np.pad(waveform, ((0, 0), (0, self.padded_samples(samples) - samples)))

    def padded_samples(self, samples: int) -> int:
        """The length that `pad` gives audio of `samples`."""
        return -(-samples // self.samples_per_latent) * self.samples_per_latent + self.reach

    def reconstruct(
        self, path_or_audio: Any, denoising_steps: int = 1, seed: int = 0, tokens: bool = False
    ) -> np.ndarray:
        """Encodes and decodes audio at its full length, `[channels, samples]`; see both.

        With `tokens`, decodes the latents that a discrete model's tokens stand for. A stereo model
        gives two channels of mono too.
        """
        waveform = self._open(path_or_audio)
        latents = self.encode(self.pad(waveform))
        if tokens:
            latents = self.from_tokens(self.to_tokens(latents))
        return self.decode(latents, denoising_steps, seed=seed)[:, : waveform.shape[1]]

    def encode(
        self,
        path_or_audio: Any,
        max_waveform_length: int | None = None,
        max_batch_size: int | None = None,
        extract_features: bool = False,
        overlap: int = 0,
    ) -> np.ndarray:
        """Encodes audio; samples after the last whole latent vector are dropped.

        Args:
          path_or_audio: a path or a binary file (resampled if its rate is not the model's);
            `[channels, samples]` or `[samples]`, floating point, at the model's sample rate, of
            NumPy, JAX or PyTorch; or such an array and its rate in Hz, resampled like a file.
          max_waveform_length: samples in a chunk; a minute if None. It changes the latents:
            normalisation pools over the chunk.
          max_batch_size: rows (chunks times channels) encoded at once; one per device if None. It
            does not change the latents.
          extract_features: returns the features before the bottleneck instead.
          overlap: samples that consecutive chunks share, rounded up to latent vectors; each gives
            the half that is farther from its end. With 0, as in the reference, chunks end bluntly
            and the last is completed from the start.

        Returns:
          Latents `[channels, 64, frames]`, float32, scaled so that the authors' weights give unit
          variance on music; or features `[channels, 8192, frames]`, not scaled. A stereo model
          gives `[1, …, frames]` of one or two channels, of which one is taken for both.

        Raises:
          InputError: for an unreadable file, another shape, integers, too few samples, samples that
            are not finite, more than two channels for a stereo model, or a model that gives NaN.
        """
        options = (max_waveform_length, max_batch_size, extract_features, overlap)
        return self.encode_batch([path_or_audio], *options)[0]

    def encode_batch(
        self,
        paths_or_audio: Iterable[Any],
        max_waveform_length: int | None = None,
        max_batch_size: int | None = None,
        extract_features: bool = False,
        overlap: int = 0,
    ) -> list[np.ndarray]:
        """Encodes several pieces of any lengths in shared batches; arguments as in `encode`.

        Batching doesn't change latents, but for rounding. Lengths are padded to a few and the
        padding masked, so that little is compiled.
        """
        chunking = self.chunking(max_waveform_length, overlap)
        sources = as_pieces(paths_or_audio)
        audio = [self._open(source) for source in sources]
        cuts = [chunking.cut(self.latents_in(waveform.shape[1])) for waveform in audio]
        step = self.samples_per_latent
        rows = [
            row
            for waveform, chunks in zip(audio, cuts, strict=True)
            for chunk in chunks
            for row in self.audio_rows(
                waveform[:, chunk.begin * step : chunk.end * step + self.reach], chunk, waveform
            )
        ]
        # The longest first, for rows of like length to share a batch.
        order = sorted(range(len(rows)), key=lambda number: -rows[number].chunk.length)
        count = self._limit(max_batch_size, len(rows))
        longest_first = [rows[number] for number in order]
        encoded = self.encode_rows(longest_first, chunking, count, extract_features)
        encoded = self._shown(encoded, len(rows), 'encoding')
        by_number = dict(zip(order, encoded, strict=True))
        in_order = map(by_number.get, range(len(rows)))
        results = []
        for source, waveform, chunks in zip(sources, audio, cuts, strict=True):
            count = self.sequences(len(waveform))
            parts = [np.stack([next(in_order) for _ in range(count)]) for _ in chunks]
            latents = join_latents(parts, chunks, chunking.overlap)
            results.append(check_encoded(latents, waveform, source))
        return results

    def decode(
        self,
        latent: Any,
        denoising_steps: int = 1,
        max_waveform_length: int | None = None,
        max_batch_size: int | None = None,
        seed: int = 0,
        overlap: int = 0,
    ) -> np.ndarray:
        """Decodes latents; the same seed gives the same samples.

        Args:
          latent: `[channels, 64, frames]` or `[64, frames]`, as `encode` returns them; of a stereo
            model one sequence, `[1, 64, frames]` or `[64, frames]`.
          denoising_steps: evaluations of the model; it was trained for one.
          max_waveform_length, max_batch_size: see `encode`.
          seed: of the noise that decoding starts from.
          overlap: samples over which consecutive chunks fade into each other, rounded up to latent
            vectors. With 0, as in the reference, chunks end bluntly, which may be heard.

        Returns:
          `[channels, 4096·frames + 1536]`, float32 in [-1, 1], at the model's sample rate; two
          channels of a stereo model.

        Raises:
          InputError: for another shape, integers, numbers that are not finite, or a model that
            gives NaN.
        """
        config = self.config
        widths = config.latent_channels, config.feature_channels
        latents = as_latents(latent, *widths, config.audio_channels)
        steps = as_whole('denoising_steps', denoising_steps, 1)
        seed = as_whole('seed', seed, 0, LARGEST_SEED)
        chunking = self.chunking(max_waveform_length, overlap)
        chunks = chunking.cut(latents.shape[2])
        rows = latent_rows(latents, chunks)
        count = self._limit(max_batch_size, len(rows))
        decoded = self.decode_rows(rows, chunking, count, steps, seed)
        decoded = self._shown(decoded, len(rows), 'decoding')
        parts = (join_channels([next(decoded) for _ in latents]) for _ in chunks)
        parts = (check_decoded(part, latents, config.latent_scale) for part in parts)
        return np.concatenate(list(self.join(parts, chunks, chunking)), axis=1)

    def latents_in(self, samples: int) -> int:
        """Latent vectors in `samples` of audio; an InputError if they are too few for one."""
        if samples < (least := self.least_samples):
            raise InputError(f'{samples} samples are too few to encode: {least} at least')
        return (samples - self.reach) // self.samples_per_latent

    def _open(self, path_or_audio: Any) -> np.ndarray:
        return as_waveform(path_or_audio, self.sample_rate, self.config.audio_channels)

    def _shown(self, rows: Iterator[np.ndarray], count: int, text: str) -> Iterator[np.ndarray]:
        return shown(rows, count, 'chunk', text) if self._progress else rows

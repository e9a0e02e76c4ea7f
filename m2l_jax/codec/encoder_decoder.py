"""Waveforms in, latents out, and back."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from m2l_jax.audio.levels import levels_of
from m2l_jax.codec.arrays import as_latents, as_pieces, as_waveform, as_whole, describe_excess
from m2l_jax.codec.batches import AudioRow, LatentRow, RowRunner, in_batches, latent_rows
from m2l_jax.codec.chunks import Chunk, Chunking
from m2l_jax.codec.placement import choose_devices
from m2l_jax.codec.seams import join_latents, join_waveforms
from m2l_jax.codec.weights import open_weights
from m2l_jax.interface.devices import standard_jax
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.settings import LARGEST_SEED, differences
from m2l_jax.model.autoencoder import Music2Latent, Params
from m2l_jax.model.config import ModelConfig

_CHUNK_SECONDS = 60


class EncoderDecoder:
    """A model with its parameters, compiled once for each of the few lengths that it pads to.

    A drop-in for the class of that name in the PyTorch package: `encode` and `decode` have the same
    arguments, shapes, scale, cropping and chunks. Audio channels are independent rows. Audio longer
    than a chunk is cut, with hard seams, and the last chunk completed from the start of the audio;
    what that adds is cut off again. Padding is masked and changes nothing. Threads may share it;
    other processes get a copy by pickling, where they are spawned and not forked.

    Args:
      checkpoint: folder of a training run or a conversion, `.pt` or `.safetensors` file, or 'small'
        for the model that comes with this package (`./small` is a folder). Without one the authors'
        released weights are fetched once; these are CC BY-NC 4.0.
      device: one of JAX's, or a name as PyTorch has it: 'cpu', 'cuda', 'cuda:1'; None for JAX's
        default one.
      dtype: of the computation, whatever the model was trained in: 'float32', in full on
        accelerators too, or 'bfloat16', much faster there.
      devices: rows are shared out among them, in place of `device`.
      load_path_inference: the PyTorch package's name of `checkpoint`.

    Raises:
      InputError: if the checkpoint cannot be read, or not be fetched, or a device is not there.
    """

    @standard_jax()
    def __init__(
        self,
        checkpoint: str | os.PathLike[str] | None = None,
        device: Any = None,
        *,
        dtype: str = 'float32',
        devices: Sequence[jax.Device] | None = None,
        load_path_inference: str | os.PathLike[str] | None = None,
    ):
        if checkpoint is not None and load_path_inference is not None:
            raise InputError('load_path_inference and checkpoint are one: pass only one of them')
        chosen = choose_devices(device, devices)
        weights = open_weights(load_path_inference if checkpoint is None else checkpoint)
        self._set_model(*weights, dtype, chosen)

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
        """Of a model in memory."""
        codec = cls.__new__(cls)
        codec._set_model(model, params, dtype, choose_devices(None, devices))
        return codec

    def with_params(self, params: Params) -> 'EncoderDecoder':
        """The same model with other parameters; what is compiled is shared."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.params = self._runner.place(params)
        other.__dict__.pop('model_id', None)
        return other

    def __copy__(self) -> 'EncoderDecoder':
        return self.with_params(self.params)

    def __deepcopy__(self, memo: dict) -> 'EncoderDecoder':
        return self.with_params(self.params)

    @standard_jax()
    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, 'params': jax.device_get(self.params)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.params = self._runner.place(self.params)

    def _set_model(
        self,
        model: Music2Latent,
        params: Params,
        dtype: str,
        devices: Sequence[jax.Device] | None,
    ) -> None:
        self.config = dataclasses.replace(model.config, dtype=dtype)
        self._runner = RowRunner(Music2Latent(self.config), devices)
        self.params = self._runner.place(params)

    @property
    def model(self) -> Music2Latent:
        """The module that computes, with kernels for the platform of the devices."""
        return self._runner.model

    @property
    def devices(self) -> int:
        """Devices that share the rows."""
        return self._runner.devices

    @property
    def samples_per_latent(self) -> int:
        """Audio samples from one latent vector to the next, 4096 at full size."""
        return self.config.samples_per_latent

    @property
    def reach(self) -> int:
        """Samples that the last frame reaches beyond its latent vector's, 1536 at full size."""
        return self.config.spectrogram.reach

    @property
    def least_samples(self) -> int:
        """The shortest audio that can be encoded, 5632 samples at full size."""
        return self.samples_per_latent + self.reach

    @functools.cached_property
    @standard_jax()
    def model_id(self) -> str:
        """A fingerprint of sizes and parameters, to tell which model latents are of."""
        # Only what is not the default: a field added later leaves old fingerprints as they are.
        sizes = differences(ModelConfig(), self.config.defining)
        digest = hashlib.sha256('; '.join(sizes).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.params):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.ascontiguousarray(leaf, np.float32))
        return digest.hexdigest()[:16]

    def pad(self, path_or_audio: Any) -> np.ndarray:
        """Appends the silence that lets `encode` drop nothing: `[channels, samples]`.

        Args:
          path_or_audio: see `encode`.
        """
        waveform = self._open(path_or_audio)
        samples = waveform.shape[1]
        return np.pad(waveform, ((0, 0), (0, self.padded_samples(samples) - samples)))

    def padded_samples(self, samples: int) -> int:
        """Samples that `pad` makes of so many."""
        return -(-samples // self.samples_per_latent) * self.samples_per_latent + self.reach

    def reconstruct(
        self, path_or_audio: Any, denoising_steps: int = 1, seed: int = 0
    ) -> np.ndarray:
        """Encodes and decodes, padded and cut so that none is lost: `[channels, samples]`.

        Args:
          path_or_audio: see `encode`.
          denoising_steps, seed: see `decode`.

        Raises:
          InputError: see `encode` and `decode`.
        """
        waveform = self._open(path_or_audio)
        latents = self.encode(self.pad(waveform))
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
          max_batch_size: rows (chunks times channels) that are encoded at once; one a device if
            None. It does not change the latents.
          extract_features: returns the features before the bottleneck instead.
          overlap: samples that consecutive chunks share, rounded up to latent vectors; each gives
            the half that is farther from its end. With 0, as in the reference, chunks end bluntly
            and the last is completed from the start.

        Returns:
          Latents `[channels, 64, frames]`, float32, scaled to unit variance on music; or features
          `[channels, 8192, frames]`, not scaled.

        Raises:
          InputError: for a file that cannot be read, another shape, integers, too few samples, or
            samples that are not finite; and if the model itself gives NaN.
        """
        (encoded,) = self.encode_batch(
            [path_or_audio], max_waveform_length, max_batch_size, extract_features, overlap
        )
        return encoded

    def encode_batch(
        self,
        paths_or_audio: Iterable[Any],
        max_waveform_length: int | None = None,
        max_batch_size: int | None = None,
        extract_features: bool = False,
        overlap: int = 0,
    ) -> list[np.ndarray]:
        """Encodes several pieces of audio, of any lengths, in shared batches.

        Each one's latents are, but for rounding, those of `encode`. Lengths are padded to a few
        and the padding masked, so that little is ever compiled.

        Args:
          paths_or_audio: each as `encode` takes it.
          max_waveform_length, max_batch_size, extract_features, overlap: see `encode`.

        Raises:
          InputError: see `encode`.
        """
        chunking = self.chunking(max_waveform_length, overlap)
        sources = list(as_pieces(paths_or_audio))
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
        count = self._limit(max_batch_size, len(rows))
        encoded = iter(self._encode_all(rows, chunking, count, extract_features))
        results = []
        for source, waveform, chunks in zip(sources, audio, cuts, strict=True):
            parts = [np.stack([next(encoded) for _ in waveform]) for _ in chunks]
            latents = join_latents(parts, chunks, chunking.overlap)
            results.append(_check_encoded(latents, waveform, source))
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
          latent: `[channels, 64, frames]` or `[64, frames]`, as `encode` returns them.
          denoising_steps: evaluations of the model; one is what it was trained for.
          max_waveform_length: samples in a chunk; a minute if None.
          max_batch_size: rows (chunks times channels) that are decoded at once; one a device if
            None.
          seed: of the noise that decoding starts from.
          overlap: samples over which consecutive chunks fade into each other, rounded up to latent
            vectors. With 0, as in the reference, chunks end bluntly, which may be heard.

        Returns:
          `[channels, 4096·frames + 1536]`, float32 in [-1, 1], at the model's sample rate.

        Raises:
          InputError: for another shape, integers, or numbers that are not finite; and if the model
            itself gives NaN.
        """
        latents = as_latents(latent, self.config.latent_channels, self.config.feature_channels)
        steps = as_whole('denoising_steps', denoising_steps, 1)
        seed = as_whole('seed', seed, 0, LARGEST_SEED)
        chunking = self.chunking(max_waveform_length, overlap)
        chunks = chunking.cut(latents.shape[2])
        rows = latent_rows(latents, chunks)
        count = self._limit(max_batch_size, len(rows))
        decoded = self.decode_rows(rows, chunking, count, steps, seed)
        scale = self.config.latent_scale
        parts = (
            check_decoded(np.stack([next(decoded) for _ in latents]), latents, scale)
            for _ in chunks
        )
        return np.concatenate(list(self.join(parts, chunks, chunking)), axis=1)

    def encode_rows(
        self,
        rows: Iterable[AudioRow],
        chunking: Chunking,
        count: int | Callable[[int], int],
        extract_features: bool = False,
    ) -> Iterator[np.ndarray]:
        """Encodes rows of any origin, in order, in shared batches: `[C, chunk.length]` each.

        Args:
          rows: see `audio_rows`.
          chunking: see `chunking`.
          count: rows at once, or what gives it for a number of latent vectors in each.
          extract_features: see `encode`.
        """
        counts = count if callable(count) else lambda length: count
        method = 'features' if extract_features else 'encode'
        for length, batch in in_batches(rows, chunking.size, counts):
            yield from self._runner.encode(self.params, batch, length, counts(length), method)

    def decode_rows(
        self,
        rows: Iterable[LatentRow],
        chunking: Chunking,
        count: int | Callable[[int], int],
        steps: int,
        seed: int,
    ) -> Iterator[np.ndarray]:
        """Decodes rows of any origin, in order: `[4096·chunk.kept + 1536]` each, for `join`.

        Args:
          rows: see `latent_rows`.
          chunking, count: see `encode_rows`.
          steps, seed: see `decode`.
        """
        counts = count if callable(count) else lambda length: count
        for length, batch in in_batches(rows, chunking.size, counts):
            yield from self._runner.decode(self.params, batch, length, counts(length), steps, seed)

    def join(
        self, parts: Iterable[np.ndarray], chunks: Sequence[Chunk], chunking: Chunking
    ) -> Iterator[np.ndarray]:
        """Waveforms of each chunk, `[channels, 4096·kept + 1536]`, to blocks of the whole's."""
        step, reach = self.samples_per_latent, self.reach
        return join_waveforms(parts, chunks, chunking.overlap, step, reach)

    def audio_rows(self, stretch: np.ndarray, chunk: Chunk, start: np.ndarray) -> list[AudioRow]:
        """A row for each channel of a chunk.

        Args:
          stretch: `[channels, 4096·chunk.kept + 1536]`, the chunk's own audio.
          chunk: which one.
          start: `[channels, samples]`, what completes it: the audio's beginning.
        """
        pieces = [stretch]
        if chunk.wrapped:
            pieces.append(start[:, : chunk.wrapped * self.samples_per_latent + self.reach])
        return [AudioRow(chunk, channel) for channel in zip(*pieces, strict=True)]

    def chunking(self, max_waveform_length: int | None = None, overlap: int = 0) -> Chunking:
        """How audio is cut, counted in latent vectors; see `encode`.

        Raises:
          InputError: for chunks of no latent vector, or an overlap of more than half a chunk.
        """
        if max_waveform_length is None:
            max_waveform_length = _CHUNK_SECONDS * self.config.spectrogram.sample_rate
        step = self.samples_per_latent
        size = as_whole('max_waveform_length', max_waveform_length, step, unit=' samples') // step
        most = size // 2 * step
        overlap = as_whole('overlap', overlap, 0, most, ' samples, half a chunk')
        if not overlap:
            return Chunking(size)
        # A fade begins where the frames of both chunks are complete.
        shared = max(-(-overlap // step), self.reach // step + 1)
        if 2 * shared > size:
            raise InputError(
                f'max_waveform_length={max_waveform_length} is too short for chunks to overlap: '
                f'{2 * shared * step} samples at least'
            )
        return Chunking(size, shared)

    def latents_in(self, samples: int) -> int:
        """Latent vectors of so many samples.

        Raises:
          InputError: if they are too few for one.
        """
        if samples < self.least_samples:
            raise InputError(
                f'{samples} samples are too few to encode: {self.least_samples} at least'
            )
        return (samples - self.reach) // self.samples_per_latent

    def _open(self, path_or_audio: Any) -> np.ndarray:
        return as_waveform(path_or_audio, self.config.spectrogram.sample_rate)

    def _encode_all(
        self, rows: Sequence[AudioRow], chunking: Chunking, count: int, extract_features: bool
    ) -> list[np.ndarray]:
        """As `encode_rows`, but the longest first, for rows of like length to share a batch."""
        order = sorted(range(len(rows)), key=lambda number: -rows[number].chunk.length)
        longest_first = [rows[number] for number in order]
        encoded = self.encode_rows(longest_first, chunking, count, extract_features)
        by_number = dict(zip(order, encoded, strict=True))
        return [by_number[number] for number in range(len(rows))]

    def _limit(self, max_batch_size: int | None, rows: int) -> int:
        """Rows at once, a multiple of the devices, of so many in all."""
        size = self.devices
        if max_batch_size is not None:
            size = as_whole('max_batch_size', max_batch_size, 1)
        return -(-min(size, rows) // self.devices) * self.devices


def _check_encoded(latents: np.ndarray, waveform: np.ndarray, source: Any) -> np.ndarray:
    """As `check_finite`, but blames audio that is too loud: its name, if any, is `source`."""
    if not np.all(np.isfinite(latents)) and (too_loud := levels_of(waveform).too_loud()):
        name = os.fspath(source) if isinstance(source, str | os.PathLike) else 'audio'
        raise InputError(f'{name} cannot be encoded, it is {too_loud}')
    return check_finite(latents)


def check_decoded(
    waveform: np.ndarray, latents: np.ndarray, scale: float, name: str = 'the array'
) -> np.ndarray:
    """As `check_finite`, but names the latents, and blames them if no encoder gives such."""
    if not np.all(np.isfinite(waveform)) and (excess := describe_excess(latents, scale)):
        raise InputError(f'{name} {excess}; of these the model makes NaN')
    try:
        return check_finite(waveform)
    except InputError as error:
        raise InputError(f'{name}: {error}') from None


def check_finite(array: np.ndarray) -> np.ndarray:
    """The same array, unless the model has made NaN of finite numbers; then an InputError."""
    if not np.all(np.isfinite(array)):
        raise InputError('the model gives NaN: its training diverged, use another checkpoint')
    return array

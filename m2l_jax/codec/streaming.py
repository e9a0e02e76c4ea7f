"""Decodes latents as they arrive, chunk by chunk."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from m2l_jax.codec.arrays import as_latents, as_whole, check_decoded
from m2l_jax.codec.batches import RowCodec, chunk_rows, join_channels
from m2l_jax.codec.chunks import (
    CHUNK_SECONDS,
    STREAMED_CHUNK_SECONDS,
    STREAMED_OVERLAP_SECONDS,
    Chunk,
    Chunking,
    join_waveforms,
)
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.settings import LARGEST_SEED
from m2l_jax.model.config import ModelConfig


class StreamingCodec(RowCodec):
    """Decodes a stream of latents with the memory and the delay of one chunk."""

    @property
    def sample_rate(self) -> int:
        """The rate of decoded audio, and of arrays to encode, in Hz."""
        return self.config.spectrogram.sample_rate

    @property
    def samples_per_latent(self) -> int:
        """Audio samples from one latent vector to the next, 4096 at full size."""
        return self.config.samples_per_latent

    @property
    def reach(self) -> int:
        """Samples that the last frame covers beyond its latent vector, 1536 at full size."""
        return self.config.spectrogram.reach

    def stream(
        self,
        latents: Iterable[Any],
        denoising_steps: int = 1,
        max_waveform_length: int | None = None,
        max_batch_size: int | None = None,
        seed: int = 0,
        overlap: int | None = None,
    ) -> Iterator[np.ndarray]:
        """Decodes latents while they arrive; all blocks together are what `decode` makes of all.

        With chunks of *n* latent vectors that share *o*, block *k*, from 0, comes as soon as
        n + k·(n - o) vectors have been taken, and no vector is taken before its turn. So audio is
        never more than n vectors behind. At most 2·n are held, and the array that is cut.

        Args:
          latents: arrays `[channels, 64, frames]` or `[64, frames]` of any number of frames, also
            0, as a language model makes them; each may be overwritten once the next is asked for.
          denoising_steps, seed: see `decode`.
          max_waveform_length: samples in a chunk, 4 s if None. It changes the audio: normalisation
            pools over the chunk, and shorter ones sound a little worse.
          max_batch_size: channels decoded at once; one per device if None.
          overlap: see `decode`; half a second if None.

        Yields:
          Consecutive blocks `[channels, samples]`, float32 in [-1, 1].

        Raises:
          InputError: for wrong arguments, at once; while streaming, for arrays of another shape,
            integers, another number of channels than before, numbers that are not finite, no
            latents at all, or a model that gives NaN.
        """
        steps = as_whole('denoising_steps', denoising_steps, 1)
        seed = as_whole('seed', seed, 0, LARGEST_SEED)
        if max_waveform_length is None:
            max_waveform_length = round(STREAMED_CHUNK_SECONDS * self.sample_rate)
        if overlap is None:
            overlap = round(STREAMED_OVERLAP_SECONDS * self.sample_rate)
        chunking = self.chunking(max_waveform_length, overlap)
        self._limit(max_batch_size, 1)
        if hasattr(latents, 'shape') or not isinstance(latents, Iterable):
            raise InputError(
                'stream takes arrays one after another: pass [latents], or call decode'
            )
        cut = cut_stream(_checked(latents, self.config), chunking)

        def decode(chunk: Chunk, arrived: np.ndarray) -> np.ndarray:
            count = self._limit(max_batch_size, len(arrived))
            rows = self.decode_rows(chunk_rows(arrived, chunk), chunking, count, steps, seed)
            return check_decoded(
                join_channels(list(rows)), arrived, self.config.latent_scale, 'the stream'
            )

        chunks, pieces = itertools.tee(cut)
        parts = itertools.starmap(decode, pieces)
        return self.join(parts, (chunk for chunk, _ in chunks), chunking)

    def join(
        self, parts: Iterable[np.ndarray], chunks: Iterable[Chunk], chunking: Chunking
    ) -> Iterator[np.ndarray]:
        """Joins each chunk's waveforms, `[channels, 4096·kept + 1536]`, to blocks of the whole."""
        step, reach = self.samples_per_latent, self.reach
        return join_waveforms(parts, chunks, chunking.overlap, step, reach)

    def chunking(self, max_waveform_length: int | None = None, overlap: int = 0) -> Chunking:
        """Size and overlap of chunks in latent vectors, from samples; see `encode`.

        Raises:
          InputError: for chunks of no latent vector, or an overlap of more than half a chunk.
        """
        if max_waveform_length is None:
            max_waveform_length = CHUNK_SECONDS * self.config.spectrogram.sample_rate
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

    def _limit(self, max_batch_size: int | None, rows: int) -> int:
        """Rows at once, a multiple of the devices, of `rows` in all."""
        size = self.devices if max_batch_size is None else max_batch_size
        size = min(as_whole('max_batch_size', size, 1), rows)
        return -(-size // self.devices) * self.devices


def cut_stream(
    arrays: Iterable[np.ndarray], chunking: Chunking
) -> Iterator[tuple[Chunk, np.ndarray]]:
    """Cuts latents that arrive little by little as `Chunking.cut` does the whole.

    A chunk that begins at a multiple of size - overlap is known as soon as it is full, whatever
    follows; only the last may begin elsewhere, and the latest `size` vectors are all that it needs.

    Args:
      arrays: `[channels, 64, any]`, at least one vector in all.
      chunking: size and overlap.

    Yields:
      Each chunk and its latents, `[channels, 64, chunk.length]`.
    """
    size, stride = chunking.size, chunking.size - chunking.overlap
    total, cut, due = 0, 0, size  # vectors that came, up to the last chunk's end, to the next's
    latest = start = None
    for array in arrays:
        while array.shape[-1]:
            taken, array = np.split(array, [due - total], axis=-1)
            total += taken.shape[-1]
            known = [taken] if latest is None else [latest, taken]
            latest = np.concatenate(known, axis=-1)[..., -size:]
            if total == due:
                yield Chunk(total - size, total), latest
                cut, due = total, due + stride
                if start is None and not chunking.overlap:
                    start = latest  # completes the last of the chunks that do not overlap
    if total > cut:
        last = chunking.cut(total)[-1]
        own = latest[..., -last.kept :]
        yield last, np.concatenate([own, start[..., : last.wrapped]], -1) if last.wrapped else own


def _checked(arrays: Iterable[Any], config: ModelConfig) -> Iterator[np.ndarray]:
    """Yields latents `[channels, 64, frames]`, float32, without empty arrays."""
    widths = config.latent_channels, config.feature_channels
    channels = None
    for number, array in enumerate(arrays):
        if tuple(getattr(array, 'shape', ()))[-1:] == (0,):
            continue
        name = f'array {number} of the stream'
        latents = as_latents(array, *widths, config.audio_channels, name)
        if channels not in (None, len(latents)):
            raise InputError(f'{name} has {len(latents)} channels: those before it have {channels}')
        channels = len(latents)
        yield latents
    if channels is None:
        raise InputError('the stream holds no latents: pass one array of them at least')

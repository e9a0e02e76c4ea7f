"""Cuts long audio into chunks of few lengths, and joins what becomes of them."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

CHUNK_SECONDS = 60
STREAMED_CHUNK_SECONDS, STREAMED_OVERLAP_SECONDS = 4.0, 0.5  # of latents as they arrive

_LEAST_BUCKET = 8
_BUCKETS_TO_DOUBLE = 8


@dataclasses.dataclass(frozen=True)
class Chunk:
    """A stretch of latent vectors, from `begin` to before `end`.

    Attributes:
      begin, end: of the stretch.
      wrapped: vectors from the very start that follow it, to complete the last chunk.
    """

    begin: int
    end: int
    wrapped: int = 0

    @property
    def kept(self) -> int:
        """Vectors of the stretch itself."""
        return self.end - self.begin

    @property
    def length(self) -> int:
        """Vectors in all."""
        return self.kept + self.wrapped

    @property
    def positions(self) -> np.ndarray:
        """Position of each vector in the whole, `[length]`."""
        return np.concatenate([np.arange(self.begin, self.end), np.arange(self.wrapped)])


@dataclasses.dataclass(frozen=True)
class Chunking:
    """Size and overlap of chunks, in latent vectors; the overlap is at most half of the size."""

    size: int
    overlap: int = 0

    def cut(self, total: int) -> list[Chunk]:
        """Cuts `total` latent vectors; what fits one chunk stays whole.

        Without overlap, the last chunk is completed from the start, as the reference does it. With
        overlap, the last chunk begins early enough to be full.
        """
        size, overlap = self.size, self.overlap
        if total <= size:
            return [Chunk(0, total)]
        if overlap:
            begins = [*range(0, total - size, size - overlap), total - size]
            return [Chunk(begin, begin + size) for begin in begins]
        return [
            Chunk(begin, min(begin + size, total), max(0, begin + size - total))
            for begin in range(0, total, size)
        ]


def bucket(length: int, size: int) -> int:
    """Rounds `length`, at most `size`, up to one of few lengths.

    Eight to each doubling: at most an eighth of a row, on average a twentieth, is padding.
    """
    if length <= _LEAST_BUCKET:
        return min(_LEAST_BUCKET, size)
    step = max(2, (1 << (length - 1).bit_length()) // (2 * _BUCKETS_TO_DOUBLE))
    return min(-(-length // step) * step, size)


def join_latents(
    parts: Sequence[np.ndarray], chunks: Sequence[Chunk], overlap: int = 0
) -> np.ndarray:
    """Joins the latents of each chunk, `[..., length]`, to `[..., total]`.

    Of an overlap, each chunk gives the half that is farther from its end. Vectors that complete the
    last chunk are dropped.
    """
    joined, begin = [], 0
    for part, chunk in zip(parts, chunks, strict=True):
        end = chunk.end if chunk is chunks[-1] else chunk.end - overlap // 2
        joined.append(part[..., begin - chunk.begin : end - chunk.begin])
        begin = end
    return np.concatenate(joined, axis=-1)


def join_waveforms(
    parts: Iterable[np.ndarray], chunks: Iterable[Chunk], overlap: int, step: int, reach: int
) -> Iterator[np.ndarray]:
    """Joins the waveforms of each chunk to consecutive blocks of the whole, clipped to [-1, 1].

    Overlapping chunks cross-fade linearly: decoded from the same noise, they are nearly equal
    there. Without overlap, the last frames of a chunk are added to the first of the next, as in one
    spectrogram: the reference's hard seams.

    A block for each chunk, up to where the next chunk joins it, comes before the next is asked for;
    after the last chunk, its end.

    Args:
      parts: `[channels, step·kept + reach]` of each chunk.
      chunks: see `Chunking.cut`.
      overlap: latent vectors that consecutive chunks share.
      step: samples per latent vector.
      reach: samples that the last frame covers beyond its latent vector.
    """
    faded = overlap * step - reach if overlap else 0
    ramp = ((np.arange(faded) + 0.5) / max(faded, 1)).astype(np.float32)
    rest = np.zeros((1, 0), np.float32)  # of the chunk before, from `join` on
    join = 0  # samples of the whole
    for part, chunk in zip(parts, chunks, strict=True):
        joined = part[:, join - chunk.begin * step :].copy()
        if not overlap:
            joined[:, : rest.shape[1]] += rest
        elif rest.size:
            joined[:, :faded] *= ramp
            joined[:, :faded] += rest[:, :faded] * (1 - ramp)
        done = chunk.end * step - faded - join
        yield np.clip(joined[:, :done], -1, 1)
        rest, join = joined[:, done:], join + done
    yield np.clip(rest, -1, 1)

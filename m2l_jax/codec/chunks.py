"""Cuts long audio into chunks, and rounds lengths so that few programs are compiled."""

import dataclasses

import numpy as np

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
    """Size and overlap of chunks.

    Attributes:
      size: latent vectors in a chunk.
      overlap: latent vectors that consecutive chunks share, at most half of `size`.
    """

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

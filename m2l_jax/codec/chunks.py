"""How long audio is cut for the memory's sake, and how lengths are rounded for the compiler's."""

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
        """Of each vector in the whole, `[length]`."""
        return np.concatenate([np.arange(self.begin, self.end), np.arange(self.wrapped)])


@dataclasses.dataclass(frozen=True)
class Chunking:
    """How what is long is cut.

    Attributes:
      size: latent vectors in a chunk.
      overlap: latent vectors that consecutive chunks share, at most half of `size`.
    """

    size: int
    overlap: int = 0

    def cut(self, total: int) -> list[Chunk]:
        """The chunks of `total` latent vectors; what is no longer than a chunk stays whole.

        Without overlap, the last chunk is completed from the start, as the reference does it. With
        overlap, the last begins early enough to be full.
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
    """The length that `length`, at most `size`, is padded to, so that few are ever compiled.

    Eight to each doubling, so that at most an eighth, and about a twentieth on average, is padding.
    """
    if length <= _LEAST_BUCKET:
        return min(_LEAST_BUCKET, size)
    step = max(2, (1 << (length - 1).bit_length()) // (2 * _BUCKETS_TO_DOUBLE))
    return min(-(-length // step) * step, size)

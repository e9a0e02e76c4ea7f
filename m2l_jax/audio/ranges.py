"""Parts of a file, shown to libsndfile as if they were all of it."""

import bisect
import io
import itertools
import os
from collections.abc import Sequence
from typing import Any

_TAIL_BYTES = 128  # at the very end, where a decoder of MP3 looks for a tag


class Ranges(io.FileIO):
    """A file made of ranges of another, one after another.

    Args:
      path: the file.
      ranges: first byte and end of each.
      head: bytes before them.
      stretch: how many times longer it is to seem; nothing follows but, at the very end, zeros.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        ranges: Sequence[tuple[int, int]],
        head: bytes = b'',
        stretch: int = 1,
    ):
        super().__init__(path)
        self._head = head
        self._ranges = ranges
        # Where each begins in what is shown, and where the last ends.
        sizes = (end - begin for begin, end in ranges)
        self._places = list(itertools.accumulate(sizes, initial=len(head)))
        self._length = self._places[-1] * stretch
        self._position = 0

    def tell(self) -> int:
        """Place in what is shown."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves in what is shown."""
        self._position = offset + (0, self._position, self._length)[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Reads within one range; fewer bytes than asked for at its end."""
        view, place = memoryview(buffer).cast('B'), self._position
        if place < len(self._head):
            count = min(len(view), len(self._head) - place)
            view[:count] = self._head[place : place + count]
        elif place < self._places[-1]:
            index = bisect.bisect(self._places, place) - 1
            super().seek(self._ranges[index][0] + place - self._places[index])
            count = super().readinto(view[: self._places[index + 1] - place])
        elif place >= self._length - _TAIL_BYTES:
            count = min(len(view), max(0, self._length - place))
            view[:count] = bytes(count)
        else:
            count = 0
        self._position += count
        return count

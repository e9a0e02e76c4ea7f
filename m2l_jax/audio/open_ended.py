"""MP3 files that do not state their length, shown to libsndfile so that it reads all of them.

It guesses the length from the first frame, and stops there.
"""

import io
import os
from typing import Any, BinaryIO

# Of layer III: the highest bit rate over the lowest, and so how wrong the guess can be.
_MOST_STRETCH = 40
_ID3V1_BYTES = 128
_ID3V2_BYTES = 10
# What a first frame that states the length holds, within its side information and 4 bytes more.
_LENGTH_MARKS = (b'Xing', b'Info', b'VBRI')
_FIRST_FRAME_BYTES = 192


class _Shown(io.FileIO):
    """A file that seems to have another length, and other bytes in one place."""

    def __init__(self, path: str | os.PathLike[str], length: int, place: int, patch: bytes):
        super().__init__(path)
        self._length, self._place, self._patch = length, place, patch

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            return super().seek(self._length + offset)
        return super().seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        view, begin = memoryview(buffer).cast('B'), self.tell()
        count = super().readinto(view)
        first = max(begin, self._place)
        last = min(begin + len(view), self._place + len(self._patch))
        if first < last:
            shown = self._patch[first - self._place : last - self._place]
            view[first - begin : last - begin] = shown
            count = max(count, last - begin)
            super().seek(begin + count)
        return count


def show_mp3(path: str | os.PathLike[str]) -> BinaryIO | None:
    """An MP3 as one so long that no guess ends within it; None if it states its length itself."""
    with open(path, 'rb') as file:
        tag = file.read(_ID3V2_BYTES)
        if tag[:3] == b'ID3' and len(tag) == _ID3V2_BYTES:
            size = sum(byte << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
            file.seek(_ID3V2_BYTES + size)
        else:
            file.seek(0)
        frame = file.read(_FIRST_FRAME_BYTES)
    if any(mark in frame for mark in _LENGTH_MARKS):
        return None
    length = os.path.getsize(path) * _MOST_STRETCH
    # The decoder looks for a tag at the very end.
    return _Shown(path, length, length - _ID3V1_BYTES, bytes(_ID3V1_BYTES))

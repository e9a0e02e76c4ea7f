"""Files whose header does not say where they end, shown to libsndfile so that it reads all of them.

It takes a WAV whose size was never filled in for an empty one.
"""

import io
import os
import struct
from typing import Any, BinaryIO

_PIPE_SIZE = b'\xff\xff\xff\xff'
_CHUNKS_BEFORE_AUDIO = 100


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


def show_wav(path: str | os.PathLike[str]) -> BinaryIO | None:
    """A WAV with the size that writers into a pipe state, where its writer has stated none.

    None if it is no such WAV: a recorder that lost its power, or a program that wrote into a pipe,
    leaves the sizes at 0 but goes on behind them.
    """
    size = os.path.getsize(path)
    with open(path, 'rb') as file:
        magic, riff_size, form = struct.unpack('<4sI4s', file.read(12).ljust(12, b'\0'))
        if (magic, form) != (b'RIFF', b'WAVE') or riff_size + 8 >= size:
            return None
        for _ in range(_CHUNKS_BEFORE_AUDIO):
            name, length = struct.unpack('<4sI', file.read(8).ljust(8, b'\0'))
            if name == b'data':
                break
            file.seek(length + length % 2, os.SEEK_CUR)
        place = file.tell() - 4
    return _Shown(path, size, place, _PIPE_SIZE) if (name, length) == (b'data', 0) else None

"""Files whose header does not say where they end, shown to libsndfile so that it reads all of them.

It takes a WAV whose size was never filled in for an empty one, and guesses the length of an MP3
from its first frame, at which it stops.
"""

import io
import os
import struct
from typing import Any, BinaryIO

_PIPE_SIZE = b'\xff\xff\xff\xff'
# Of layer III: the highest bit rate over the lowest, and so how wrong the guess can be.
_MOST_STRETCH = 40
_ID3V1_BYTES = 128
_ID3V2_BYTES = 10
# What a first frame that states the length holds, within its side information and 4 bytes more.
_LENGTH_MARKS = (b'Xing', b'Info', b'VBRI')
_FIRST_FRAME_BYTES = 192
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

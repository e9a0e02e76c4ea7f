"""What the pages of an Ogg file tell (RFC 3533): whether one stream follows another in it."""

import os
import struct
from typing import BinaryIO, NamedTuple

_MARK = b'OggS'
_HEADER = struct.Struct('<4sBBQIIIB')
_LONGEST_PAGE = _HEADER.size + 255 + 255 * 255
_FIRST = 2  # the flag of a stream's first page
_ALL_FLAGS = 7


class _Page(NamedTuple):
    mark: bytes
    version: int
    flags: int
    position: int
    stream: int
    number: int
    checksum: int
    segments: int


def is_chained(path: str | os.PathLike[str]) -> bool:
    """Whether a file ends in a stream that does not begin where the file does.

    So it is where several files were joined, or a radio station was recorded.
    """
    with open(path, 'rb') as file:
        beginning = _first_streams(file)
        last = _last_page(file)
    return bool(beginning) and last is not None and last.stream not in beginning


def _first_streams(file: BinaryIO) -> set[int]:
    """Serial numbers of the streams whose first pages begin the file."""
    streams = set()
    while (page := _parse(file.read(_HEADER.size))) is not None and page.flags & _FIRST:
        streams.add(page.stream)
        file.seek(sum(file.read(page.segments)), os.SEEK_CUR)
    return streams


def _last_page(file: BinaryIO) -> _Page | None:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _LONGEST_PAGE))
    tail = file.read(_LONGEST_PAGE)
    begin = tail.rfind(_MARK)
    while begin >= 0:
        if (page := _parse(tail[begin : begin + _HEADER.size])) is not None:
            return page
        begin = tail.rfind(_MARK, 0, begin)
    return None


def _parse(header: bytes) -> _Page | None:
    if len(header) < _HEADER.size:
        return None
    page = _Page(*_HEADER.unpack(header))
    known = page.mark == _MARK and page.version == 0 and page.flags <= _ALL_FLAGS
    return page if known else None

"""Pages of an Ogg file (RFC 3533): finds joined streams, missing pages, and FLAC in pages."""

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from m2l_jax.audio.parts import PathLike, joined, once_per_file
from m2l_jax.interface.errors import InputError

MARK = b'OggS'
_HEADER = struct.Struct('<4sBBqIIIB')
_FIRST = 2  # the flag of a stream's first page
_ALL_FLAGS = 7
_NO_POSITION = -1  # of a page on which no packet ends
_BLOCK = 1 << 16
_REVERSED = bytes(int(f'{byte:08b}'[::-1], 2) for byte in range(256))
_ALL_BITS = 0xFFFF_FFFF
# Before a FLAC file in pages: this mark, a version and the number of headers.
_FLAC, _FLAC_BEGIN = b'\x7fFLAC', 9


class _Page(NamedTuple):
    mark: bytes
    version: int
    flags: int
    position: int
    stream: int
    number: int
    checksum: int
    segments: int


@once_per_file
def check(path: PathLike) -> None:
    """Checks each page.

    Raises:
      InputError: if pages before the last are missing or damaged, or a stream begins after others:
        several files were joined, or a radio station was recorded.
      OSError: if the file cannot be read.
    """
    last: dict[int, _Page] = {}
    beginning, missing = True, 0
    with open(path, 'rb') as file:
        for page, _, _ in _pages(file):
            before = last.get(page.stream)
            is_first = bool(page.flags & _FIRST)
            beginning = beginning and is_first
            if before is not None:
                goes_back = _NO_POSITION < page.position < before.position
                if is_first or page.number <= before.number or goes_back:
                    raise joined(path, is_converted=True)
                missing += page.number - before.number - 1
            elif not beginning:
                raise joined(path, is_converted=True)
            last[page.stream] = page
    if missing:
        raise InputError(
            f'{path} is damaged, {missing} of its pages are missing or broken: replace or remove it'
        )


def flac_ranges(path: PathLike) -> list[tuple[int, int]]:
    """Lists first byte and end of each part of a FLAC file in pages; empty without one.

    Raises:
      OSError: if the file cannot be read.
    """
    with open(path, 'rb') as file:
        pages = _pages(file)
        first, begin, end = next(pages, (None, 0, 0))
        file.seek(begin)
        if first is None or not file.read(len(_FLAC)).startswith(_FLAC):
            return []
        bodies = [(begin, end) for page, begin, end in pages if page.stream == first.stream]
        return [(begin + _FLAC_BEGIN, end), *bodies]


def _pages(file: BinaryIO) -> Iterator[tuple[_Page, int, int]]:
    """Yields header, and first byte and end of the body, of each whole page; skips other bytes."""
    position = 0
    while position is not None:
        file.seek(position)
        content = file.read(_HEADER.size)
        page = _Page(*_HEADER.unpack(content.ljust(_HEADER.size, b'\0')))
        is_whole = page.mark == MARK and page.version == 0 and page.flags <= _ALL_FLAGS
        if is_whole:
            lengths = file.read(page.segments)
            content += lengths + file.read(sum(lengths))
            is_whole = _checksum(content) == page.checksum
        if is_whole:
            begin = position + _HEADER.size + page.segments
            position += len(content)
            yield page, begin, position
        else:
            position = _find_mark(file, position + 1)


def _checksum(page: bytes) -> int:
    """Computes a page's checksum with zlib's, whose bits and bytes are in reverse."""
    begin = _HEADER.size - 5
    blank = page[:begin] + bytes(4) + page[begin + 4 :]
    reverse = zlib.crc32(blank.translate(_REVERSED), _ALL_BITS) ^ _ALL_BITS
    return int.from_bytes(reverse.to_bytes(4, 'little').translate(_REVERSED), 'big')


def _find_mark(file: BinaryIO, position: int) -> int | None:
    """Finds the next place where a page may begin; None if there is none."""
    while True:
        file.seek(position)
        block = file.read(_BLOCK)
        if (found := block.find(MARK)) >= 0:
            return position + found
        if len(block) < _BLOCK:
            return None
        position += _BLOCK - len(MARK) + 1

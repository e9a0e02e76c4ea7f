"""Tags and zeros in front of and behind audio."""

import struct
from typing import BinaryIO

MARKS = (b'ID3', b'TAG', b'APETAGEX', b'LYRICSBEGIN')
MOST_ZEROS = 1 << 16  # behind audio: padding to the end of a disk's block
_ID3V2_BYTES, _ID3V2_FOOTER = 10, 0x10
_APE, _APE_IS_HEADER = struct.Struct('<8sIIII8x'), 1 << 29
_BLOCK = 1 << 16
_LONGEST_ZEROS = 1 << 24  # in front of audio


def skip(file: BinaryIO, position: int = 0) -> int:
    """The end of the tags, and of zeros between and after them, that begin at a position."""
    while (end := _skip_zeros(file, _skip_ape(file, skip_id3(file, position)))) != position:
        position = end
    return position


def skip_id3(file: BinaryIO, position: int = 0) -> int:
    """The end of the ID3v2 tags that begin at a position."""
    while True:
        file.seek(position)
        tag = file.read(_ID3V2_BYTES)
        sizes = tag[6:]
        if tag[:3] != b'ID3' or len(sizes) < 4 or max(sizes) > 127:
            return position
        size = sum(byte << shift for byte, shift in zip(sizes, (21, 14, 7, 0), strict=True))
        position += size + _ID3V2_BYTES * (2 if tag[5] & _ID3V2_FOOTER else 1)


def is_trailer(file: BinaryIO, begin: int, end: int) -> bool:
    """True if nothing lies between two positions, or a tag begins there, or all is zeros."""
    file.seek(begin)
    start = file.read(max(map(len, MARKS)))
    if begin >= end or start.startswith(MARKS):
        return True
    if any(start) or end - begin > MOST_ZEROS:
        return False
    return not any(file.read(end - begin - len(start)))


def _skip_ape(file: BinaryIO, position: int) -> int:
    file.seek(position)
    header = file.read(_APE.size).ljust(_APE.size, b'\0')
    mark, _, size, _, flags = _APE.unpack(header)
    is_header = mark == b'APETAGEX' and flags & _APE_IS_HEADER
    return position + _APE.size + size if is_header else position


def _skip_zeros(file: BinaryIO, position: int) -> int:
    """The place of the first byte from a position on that is not 0; the position if none is."""
    file.seek(position)
    place = position
    while place - position < _LONGEST_ZEROS and (block := file.read(_BLOCK)):
        if rest := block.lstrip(b'\0'):
            return place + len(block) - len(rest)
        place += len(block)
    return position

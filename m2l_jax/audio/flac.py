"""FLAC's own account of its length (RFC 9639): the number of its last frame."""

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

HEADER_BYTES = 42  # the mark, the first block's header and STREAMINFO
_FIELDS = slice(18, 26)  # sample rate, channels, bits and samples
_SAMPLES = (1 << 36) - 1
_MARK = b'fLaC'
_STREAM = re.compile(_MARK + rb'[\x00\x80]\x00\x00\x22')
_MARK_BYTES = 8  # of all that marks a stream
_BLOCK_BYTES = 1 << 18
_FRAME = re.compile(rb'\xff[\xf8\xf9]')
FRAME_HEADER_BYTES = 16
_BLOCKS = (0, 192, 576, 1152, 2304, 4608, 0, 0, *(256 << power for power in range(8)))


class Stream(NamedTuple):
    """STREAMINFO: samples in a block, at most, channels, bits of a sample, samples in all."""

    block: int
    channels: int
    bits: int
    samples: int

    @property
    def most_frame_bytes(self) -> int:
        """Bytes of a frame that nothing could be gained on."""
        return FRAME_HEADER_BYTES + self.block * self.channels * (self.bits + 1) // 8 + 16


def parse(header: bytes) -> Stream | None:
    """The stream that `HEADER_BYTES` begin; None if they do not begin one."""
    if not _STREAM.match(header):
        return None
    fields = int.from_bytes(header[_FIELDS], 'big')
    block = int.from_bytes(header[10:12], 'big')
    return Stream(block, (fields >> 41 & 7) + 1, (fields >> 36 & 31) + 1, fields & _SAMPLES)


def with_samples(header: bytes, samples: int) -> bytes:
    """The same header, which states another length."""
    fields = int.from_bytes(header[_FIELDS], 'big') & ~_SAMPLES | samples
    return header[: _FIELDS.start] + fields.to_bytes(8, 'big') + header[_FIELDS.stop :]


def find_end(tail: bytes, stream: Stream) -> int | None:
    """Samples up to the end of the last frame; None if there is none in a file's last bytes.

    A frame counts that begins the stream or follows on the one before it: audio that looks like
    a frame's header does not.
    """
    ends = {0}
    last = None
    for first, samples in _frames(tail, stream):
        end = first + samples
        if first in ends:
            last = end
        ends.add(end)
    return last


def begins(header: bytes, stream: Stream) -> bool:
    """Tells whether a header is of a stream's first frame; a recorded broadcast has later ones."""
    return next(_frames(header, stream), (1, 0))[0] == 0


def is_joined(path: str | os.PathLike[str]) -> bool:
    """Whether another stream follows the first, as where files were joined."""
    streams, kept = 0, b''
    with open(path, 'rb') as file:
        while streams < 2 and (block := file.read(_BLOCK_BYTES)):
            block = kept + block
            if _MARK in block:  # several times as fast as the expression
                streams += len(_STREAM.findall(block))
            kept = block[-(_MARK_BYTES - 1) :]
    return streams > 1


def _frames(tail: bytes, stream: Stream) -> Iterator[tuple[int, int]]:
    """First sample and samples of all that looks like a frame's header."""
    for match in _FRAME.finditer(tail):
        header = tail[match.start() : match.start() + FRAME_HEADER_BYTES].ljust(8, b'\0')
        code, rate = header[2] >> 4, header[2] & 15
        channels = min(header[3] >> 4, 8)
        ones = 8 - (header[4] ^ 255).bit_length()
        if header[3] & 1 or (channels + 1 if channels < 8 else 2) != stream.channels or ones == 1:
            continue
        after_number = 4 + max(1, ones)
        after_block = after_number + {6: 1, 7: 2}.get(code, 0)
        end = after_block + {12: 1, 13: 2, 14: 2}.get(rate, 0)
        if len(header) <= end or _crc8(header[:end]) != header[end]:
            continue
        number = header[4] & (127 >> ones)
        for byte in header[5:after_number]:
            number = number << 6 | byte & 63
        samples = _BLOCKS[code] or int.from_bytes(header[after_number:after_block], 'big') + 1
        yield (number if header[1] & 1 else number * stream.block), samples


def _crc8(content: bytes) -> int:
    crc = 0
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1) ^ (0x107 if crc & 0x80 else 0)
    return crc

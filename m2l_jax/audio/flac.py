"""Frames of a FLAC file (RFC 9639): the last one gives the length and the end of the audio."""

import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from m2l_jax.audio.parts import Contents, Part, PathLike, is_trailer, joined, once_per_file
from m2l_jax.interface.errors import InputError

HEADER_BYTES = 42  # the mark, the first block's header and STREAMINFO
_FIELDS = slice(18, 26)  # sample rate, channels, bits and samples
_SAMPLES = (1 << 36) - 1
_MARK = b'fLaC'
_STREAM = re.compile(_MARK + rb'[\x00\x80]\x00\x00\x22')
_STREAM_BYTES = 8  # that `_STREAM` matches
_BLOCK_BYTES = 1 << 18
_TAIL_BYTES = 1 << 12  # more than the last frames
_MOST_METADATA = 1000  # blocks
_FRAME = re.compile(rb'\xff[\xf8\xf9]')
_FRAME_HEADER_BYTES = 16
_BLOCKS = (0, 192, 576, 1152, 2304, 4608, 0, 0, *(256 << power for power in range(8)))


class Stream(NamedTuple):
    """STREAMINFO: most samples in a block, channels, bits of a sample, samples of the file."""

    block: int
    channels: int
    bits: int
    samples: int

    @property
    def most_frame_bytes(self) -> int:
        """Bytes of a frame that cannot be compressed."""
        return _FRAME_HEADER_BYTES + self.block * self.channels * (self.bits + 1) // 8 + 16


def look_into(part: Part) -> Contents | None:
    """Finds all audio of a file; None where libsndfile finds it too.

    Raises:
      InputError: if several streams follow each other, or the last frame is cut.
    """
    header = part.read(0, HEADER_BYTES)
    stream = parse(header)
    if stream is None:
        return None
    samples, end = _find(part.path, part.base)
    if end is None and samples >= stream.samples:  # decoding finds other cuts
        raise InputError(
            f'{part.path} is damaged at its end, sample {samples}: a frame is cut, or bytes '
            'follow that are no audio; replace or remove it'
        )
    end = end or part.size
    if samples <= stream.samples and end == part.size and not part.base:
        return None
    head = with_samples(header, max(samples, stream.samples))
    return Contents(part.show(head, len(head), end), end)


def parse(header: bytes) -> Stream | None:
    """Reads the first `HEADER_BYTES` of a stream; None if they are something else."""
    if not _STREAM.match(header):
        return None
    fields = int.from_bytes(header[_FIELDS], 'big')
    block = int.from_bytes(header[10:12], 'big')
    return Stream(block, (fields >> 41 & 7) + 1, (fields >> 36 & 31) + 1, fields & _SAMPLES)


def with_samples(header: bytes, samples: int) -> bytes:
    """Changes the length that a header states."""
    fields = int.from_bytes(header[_FIELDS], 'big') & ~_SAMPLES | samples
    return header[: _FIELDS.start] + fields.to_bytes(8, 'big') + header[_FIELDS.stop :]


def find_end(tail: bytes, stream: Stream) -> tuple[int, int] | None:
    """Counts samples up to the end of the last frame in a file's last bytes, and finds its place.

    A frame must begin the stream or continue another: audio may look like a frame's header.
    """
    ends, last = {0}, None
    for first, samples, place in _frames(tail, stream):
        if first in ends:
            last = first + samples, place
        ends.add(first + samples)
    return last


@once_per_file
def _find(path: PathLike, base: int) -> tuple[int, int | None]:
    """Counts samples up to the end of the last frame, 0 if unknown, and finds its place.

    The place, from `base`, is None if something else than a tag or zeros follows the frame. Raises
    an InputError if another stream follows.
    """
    with open(path, 'rb') as file:
        size = file.seek(0, 2)
        file.seek(base)
        stream = parse(file.read(HEADER_BYTES))
        begin = _first_frame(file, base)
        if _holds_stream(file, begin):
            raise joined(path)
        length, last = 2 * stream.most_frame_bytes + _TAIL_BYTES, None
        while last is None and length < 16 * (size - begin):  # there may be large tags
            start = max(begin, size - length)
            file.seek(start)
            last = find_end(file.read(), stream)
            length *= 16
        if last is None:
            return 0, size - base
        samples, place = last
        end = _frame_end(file, start + place, size, stream)
        file.seek(begin)
        if next(_frames(file.read(_FRAME_HEADER_BYTES), stream), (1,))[0] != 0:
            samples = 0  # a recorded broadcast begins with a later frame
        return samples, None if end is None else end - base


def _first_frame(file: BinaryIO, base: int) -> int:
    """Finds the place after the metadata."""
    place = base + len(_MARK)
    for _ in range(_MOST_METADATA):
        file.seek(place)
        block = file.read(4).ljust(4, b'\x80')
        place += 4 + int.from_bytes(block[1:], 'big')
        if block[0] & 128:  # the last
            break
    return place


def _holds_stream(file: BinaryIO, begin: int) -> bool:
    """True if a stream begins at a place or after it."""
    file.seek(begin)
    kept = b''
    while block := file.read(_BLOCK_BYTES):
        block = kept + block
        # Much faster than the expression alone.
        if (place := block.find(_MARK)) >= 0 and _STREAM.search(block, place):
            return True
        kept = block[-(_STREAM_BYTES - 1) :]
    return False


def _frame_end(file: BinaryIO, begin: int, size: int, stream: Stream) -> int | None:
    """Finds the end of the frame at `begin`, by its checksum.

    None unless the file ends there, or only tags or zeros follow.
    """
    file.seek(begin)
    crc = 0
    for place, byte in enumerate(file.read(stream.most_frame_bytes), begin + 1):
        crc = (crc << 8 & 0xFFFF) ^ _CRC16[crc >> 8 ^ byte]
        if not crc and is_trailer(file, place, size):
            file.seek(place)  # the first zeros may belong to the checksum
            return min(place + _SUM_BYTES, size) if file.read(1) == b'\0' else place
    return None


def _frames(tail: bytes, stream: Stream) -> Iterator[tuple[int, int, int]]:
    """Yields first sample, samples and place of all that looks like a frame's header."""
    for match in _FRAME.finditer(tail):
        header = tail[match.start() : match.start() + _FRAME_HEADER_BYTES].ljust(8, b'\0')
        code, rate, channels = header[2] >> 4, header[2] & 15, header[3] >> 4
        ones = 8 - (header[4] ^ 255).bit_length()
        if header[3] & 1 or (channels + 1 if channels < 8 else 2) != stream.channels or ones == 1:
            continue
        after_number = 4 + max(1, ones)
        after_block = after_number + {6: 1, 7: 2}.get(code, 0)
        end = after_block + {12: 1, 13: 2, 14: 2}.get(rate, 0)
        if len(header) <= end or _crc(header[:end], 8, 0x07) != header[end]:
            continue
        number = header[4] & (127 >> ones)
        for byte in header[5:after_number]:
            number = number << 6 | byte & 63
        samples = _BLOCKS[code] or int.from_bytes(header[after_number:after_block], 'big') + 1
        yield number if header[1] & 1 else number * stream.block, samples, match.start()


def _crc(content: bytes, bits: int, polynomial: int) -> int:
    crc = 0
    for byte in content:
        crc ^= byte << (bits - 8)
        for _ in range(8):
            crc = (crc << 1) ^ (polynomial | 1 << bits if crc >> (bits - 1) else 0)
    return crc


_SUM_BYTES = 2  # at the end of a frame
_CRC16 = [_crc(bytes([byte]), 16, 0x8005) for byte in range(256)]

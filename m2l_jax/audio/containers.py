"""Containers of PCM and FLAC: the true end of their audio, whatever sizes their header states.

Recorders that lose power, writers into pipes, and 32-bit sizes of more than 4 GiB leave a size
that is 0, unknown, too small or wrapped; libsndfile believes it, or refuses the file.
"""

import dataclasses
import os
import re
import struct
from typing import BinaryIO

from m2l_jax.audio import flac
from m2l_jax.audio.ranges import Ranges
from m2l_jax.interface.errors import InputError

PathLike = str | os.PathLike[str]

# Bytes after the audio that are not worth a word: padding, or a header counted as audio.
_FEW = 128
_ID3V1_BYTES = 128
_PADDING = 4096  # of zeros, to the end of a disk's block
_TAGS = (b'ID3', b'TAG', b'APETAGEX', b'LYRICSBEGIN')
_MOST_CHUNKS = 1000
_WRAP = 1 << 32
# About what writers into a pipe state: they cannot come back to fill the size in.
_UNKNOWN_SIZES = (
    (0x7F00_0000, 0x7F01_0000),
    (0x7FFF_0000, 0x8001_0000),
    (0xFFFF_0000, 0x1_0001_0000),
    (1 << 62, 1 << 65),
)
_GUID_END = bytes.fromhex('f3acd3118cd100c04f8edb8a')
_WAVE64 = b'riff' + bytes.fromhex('2e91cf11a5d628db04c10000')
_FILE_MARKS = (b'RIFF', b'RIFX', b'RF64', b'BW64', b'FORM', b'caff', b'.snd', b'fLaC', _WAVE64)


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a file holds.

    Attributes:
      shown: the file as libsndfile reads all of it; None if it does so anyway.
      size: bytes of audio that will be read.
      left_out: bytes after them that may be audio too.
    """

    shown: BinaryIO | None
    size: int
    left_out: int

    def describe_left_out(self, seconds: float) -> str:
        """Says what is left out of a file of which so many seconds are read; '' if nothing is."""
        if not self.left_out:
            return ''
        left_out = seconds * self.left_out / max(1, self.size)
        return (
            f'{self.left_out} bytes follow the audio that the header counts and are left out, '
            f'{left_out:.1f} s if they are audio'
        )


@dataclasses.dataclass(frozen=True)
class _Kind:
    """A container of chunks, each of a name, a size and as many bytes.

    Attributes:
      chunk: struct of a chunk's name and size.
      audio: name of the chunk that holds the audio.
      first: where the first chunk begins.
      outer: where the size of the whole is; None if it is not stated.
      outer_excess: bytes of the file that this size does not count.
      inner: bytes at the beginning of the audio chunk that are not audio.
      counted: bytes of its header that a chunk's size counts.
      align: chunks begin at multiples of it.
      cut: libsndfile takes what follows the audio for audio.
      packets: a table counts the audio, whatever the size of its chunk.
    """

    chunk: struct.Struct
    audio: bytes
    first: int = 12
    outer: int | None = 4
    outer_excess: int = 8
    inner: int = 0
    counted: int = 0
    align: int = 2
    cut: bool = False
    packets: bool = False

    @property
    def number(self) -> str:
        """Struct of a size."""
        return self.chunk.format[0] + self.chunk.format[-1]


_LITTLE, _BIG = struct.Struct('<4sI'), struct.Struct('>4sI')
_KINDS = {
    (b'RIFF', b'WAVE'): _Kind(_LITTLE, b'data'),
    (b'RIFX', b'WAVE'): _Kind(_BIG, b'data'),
    (b'RF64', b'WAVE'): _Kind(_LITTLE, b'data'),
    (b'BW64', b'WAVE'): _Kind(_LITTLE, b'data'),
    (b'FORM', b'AIFF'): _Kind(_BIG, b'SSND', inner=8),
    (b'FORM', b'AIFC'): _Kind(_BIG, b'SSND', inner=8),
    (b'FORM', b'8SVX'): _Kind(_BIG, b'BODY', cut=True),
    (b'FORM', b'16SV'): _Kind(_BIG, b'BODY', cut=True),
}
_CAF = _Kind(struct.Struct('>4sq'), b'data', first=8, outer=None, inner=4, align=1)
_CAF_ALAC = dataclasses.replace(_CAF, packets=True)
_CAF_FORMAT = slice(28, 32)
_W64 = _Kind(
    struct.Struct('<16sq'),
    b'data' + _GUID_END,
    first=40,
    outer=16,
    outer_excess=0,
    counted=24,
    align=8,
    cut=True,
)
# RF64: a chunk that comes first holds the sizes, which the 32 bits elsewhere leave out.
_DS64_PLACE = 12
_DS64_EMPTY = struct.pack('<4sI28x', b'ds64', 28)
_DS64_SIZES, _DS64_SIZES_PLACE = struct.Struct('<QQ'), 20
# Without chunks; an SDS packs 7 bits into a byte, and 120 of them into 127.
_VALUE_BYTES = {
    ('MAT4', 'PCM_16'): 2,
    ('MAT4', 'PCM_32'): 4,
    ('MAT4', 'FLOAT'): 4,
    ('MAT4', 'DOUBLE'): 8,
    ('SDS', 'PCM_S8'): 127 / 60,
    ('SDS', 'PCM_16'): 127 / 40,
    ('SDS', 'PCM_24'): 127 / 30,
}
_ELSEWHERE = b'\xff\xff\xff\xff'
_NAME = re.compile(rb'[ -~]{4}')
_LONGEST_HEAD = 1 << 26


def look_into(path: PathLike) -> Contents | None:
    """Finds all audio of a file; None for other formats, and where the header misleads no reader.

    Raises:
      InputError: for a truncated file, for several files in one, and for sizes that leave the end
        of the audio open.
    """
    with open(path, 'rb') as file:
        base = _skip_id3(file)
        size = os.fstat(file.fileno()).st_size - base
        part = _Part(path, file, base, size)
        start = part.read(0, 32)
        kind = _KINDS.get((start[:4], start[8:12]))
        if start.startswith(_WAVE64):
            kind = _W64
        elif start[:4] == b'caff':
            kind = _CAF_ALAC if start[_CAF_FORMAT] == b'alac' else _CAF
        if kind is not None:
            return _look_into_chunks(part, kind, start[:4])
        if start[:4] in (b'.snd', b'dns.'):
            return _look_into_au(part, '>' if start[:4] == b'.snd' else '<')
        if start[:4] == b'fLaC':
            return _look_into_flac(part)
    return None


def look_behind(path: PathLike, kind: tuple[str, str], values: int) -> Contents | None:
    """Compares what libsndfile reads with a file's size; None if others compare them.

    Args:
      path: the file.
      kind: libsndfile's format and subtype.
      values: samples that it reads, of all channels.
    """
    if kind not in _VALUE_BYTES:
        return None
    size = int(values * _VALUE_BYTES[kind])
    left_out = os.path.getsize(path) - size
    return Contents(None, size, left_out if left_out > _PADDING else 0)


@dataclasses.dataclass(frozen=True)
class _Part:
    """An open file without the ID3 tag before it: places count from `base`."""

    path: PathLike
    file: BinaryIO
    base: int
    size: int

    def read(self, place: int, length: int) -> bytes:
        """Bytes, padded with zeros where the file ends."""
        self.file.seek(self.base + place)
        return self.file.read(length).ljust(length, b'\0')

    def show(self, head: bytes, begin: int, end: int) -> BinaryIO:
        """This part, ended at `end`, with `head` in place of what comes before `begin`."""
        return Ranges(self.path, [(self.base + begin, self.base + end)], head)


def _skip_id3(file: BinaryIO) -> int:
    tag = file.read(10)
    if tag[:3] != b'ID3' or len(tag) < 10:
        return 0
    return 10 + sum(
        (byte & 127) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True)
    )


def _look_into_chunks(part: _Part, kind: _Kind, magic: bytes) -> Contents | None:
    begin = _find_audio(part, kind)
    if begin is None:
        return None
    wide = magic in (b'RF64', b'BW64')
    number = struct.Struct(kind.number)
    size = number.unpack(part.read(begin - number.size, number.size))[0] - kind.counted
    outer = number.unpack(part.read(kind.outer, number.size))[0] if kind.outer else None
    if wide:
        outer, data = _DS64_SIZES.unpack(part.read(_DS64_SIZES_PLACE, _DS64_SIZES.size))
        size = data if size == _WRAP - 1 else size
    end, left_out = _find_end(part, kind, begin, size, outer, wraps=number.size == 4 and not wide)
    shown = None
    misled = end != begin + size or left_out or (kind.cut and end < part.size)
    if misled or magic == b'BW64':
        shown = part.show(_true_head(part, kind, begin, end, wide), begin, end)
    return Contents(shown, end - begin, left_out)


def _find_audio(part: _Part, kind: _Kind) -> int | None:
    """Place where the bytes of the audio chunk begin; None if there is no such chunk."""
    place = kind.first
    for _ in range(_MOST_CHUNKS):
        name, size = kind.chunk.unpack(part.read(place, kind.chunk.size))
        place += kind.chunk.size
        if name == kind.audio:
            return place if place <= min(part.size, _LONGEST_HEAD) else None
        place += max(0, size - kind.counted)
        place += -place % kind.align
        if place >= part.size:
            break
    return None


def _find_end(
    part: _Part, kind: _Kind, begin: int, size: int, outer: int | None, wraps: bool
) -> tuple[int, int]:
    """Where audio ends, and how many bytes of what follows may be audio too.

    Args:
      part: the file.
      kind: its container.
      begin: where the audio begins.
      size: its bytes, as stated.
      outer: the bytes of all, as stated; None if they are not.
      wraps: whether these sizes have 32 bits.

    Raises:
      InputError: if the file ends before the audio, or after it in a way that leaves its end open.
    """
    empty, unknown = size <= kind.inner, _is_unknown(size)
    stated = begin + max(0, size)
    if stated > part.size:
        if not unknown and not kind.packets and stated > part.size + _FEW:
            raise truncated(part.path, part.size - begin, size, 'bytes')
        return part.size, 0
    following = _audio_after(part, kind, stated, 0 if empty else _FEW)
    if following is not None:
        return stated, following
    if empty or unknown or kind.packets:
        return part.size, 0
    if wraps:
        for end in range(stated + _WRAP, part.size + 1, _WRAP):
            if _audio_after(part, kind, end, _FEW) == 0:
                return end, 0
    if outer is not None and _reaches_end(part.size - kind.outer_excess, outer, wraps):
        return part.size, 0  # what is within the whole, and is no chunk, can only be audio
    if wraps and part.size - stated > _WRAP - _FEW:
        raise InputError(
            f'{part.path} is longer than its header can say, {part.size} bytes and not {size}: '
            'convert it to RF64 or FLAC'
        )
    return stated, part.size - stated


def _reaches_end(size: int, outer: int, wraps: bool) -> bool:
    """Tells whether a file of a size is what the size of the whole states, or leaves unsaid."""
    beyond = size - outer
    if wraps:
        beyond = (beyond + _FEW) % _WRAP - _FEW
    return outer <= 0 or _is_unknown(outer) or beyond <= _FEW


def _is_unknown(size: int) -> bool:
    return any(low <= size < high for low, high in _UNKNOWN_SIZES)


def _audio_after(part: _Part, kind: _Kind, stated: int, few: int) -> int | None:
    """Bytes of audio in what follows the audio; None if that is neither chunks nor tags.

    Raises:
      InputError: if another file follows.
    """
    for place in sorted({stated, stated + -stated % max(2, kind.align)}):  # not all writers pad
        if (found := _audio_in_chunks(part, kind, place, few)) is not None:
            return found
    return None


def _audio_in_chunks(part: _Part, kind: _Kind, place: int, few: int) -> int | None:
    found = 0
    for _ in range(_MOST_CHUNKS):
        if _is_trailer(part, place, few):
            return found
        name, size = kind.chunk.unpack(part.read(place, kind.chunk.size))
        content = place + kind.chunk.size
        end = content + size - kind.counted
        if not _NAME.match(name) or not content <= end <= part.size + 1:
            return None
        if name == kind.audio:
            found += end - content
        place = end + -end % kind.align
    return None


def _is_trailer(part: _Part, place: int, few: int) -> bool:
    """Tells whether a file ends at a place, but for tags, padding and a few bytes.

    Raises:
      InputError: if another file begins there.
    """
    rest = part.size - place
    start = part.read(place, 16)
    if rest <= few or start.startswith(_TAGS):
        return True
    if start.startswith(_FILE_MARKS):
        raise joined(part.path)
    return rest <= _PADDING and not any(part.read(place, rest))


def _true_head(part: _Part, kind: _Kind, begin: int, end: int, wide: bool) -> bytes:
    """All before the audio, with sizes that are true of a file that ends with the audio."""
    head, size = bytearray(part.read(0, begin)), end - begin
    number = struct.Struct(kind.number)
    if number.size == 4 and not wide and end >= _WRAP:
        if head[:4] != b'RIFF':
            raise InputError(
                f'{part.path} is longer than {_WRAP} bytes, which its format cannot say: '
                'convert it to RF64 or FLAC'
            )
        wide = True
        head[_DS64_PLACE:_DS64_PLACE] = _DS64_EMPTY
    if wide:
        _DS64_SIZES.pack_into(head, _DS64_SIZES_PLACE, len(head) + size - kind.outer_excess, size)
        head[:8] = b'RF64' + _ELSEWHERE
        head[-4:] = _ELSEWHERE
    else:
        number.pack_into(head, begin - number.size, size + kind.counted)
        if kind.outer is not None:
            number.pack_into(head, kind.outer, end - kind.outer_excess)
    return bytes(head)


def _look_into_au(part: _Part, order: str) -> Contents | None:
    begin, stated = struct.unpack(f'{order}II', part.read(4, 8))
    size = part.size - begin
    if begin > _LONGEST_HEAD or size < 0 or (stated >= size and not _is_unknown(stated)):
        return None
    if 0 < stated < size and _is_trailer(part, begin + stated, _FEW):
        return None
    head = bytearray(part.read(0, begin))
    head[8:12] = _ELSEWHERE  # up to the end of the file
    return Contents(part.show(bytes(head), begin, part.size), size, 0)


def _look_into_flac(part: _Part) -> Contents | None:
    header = part.read(0, flac.HEADER_BYTES)
    stream = flac.parse(header)
    if stream is None:
        return None
    length = min(part.size, 2 * stream.most_frame_bytes + _PADDING)
    samples = flac.find_end(part.read(part.size - length, length), stream)
    if samples is None or not flac.begins(_first_frame(part), stream):
        return None
    if samples != stream.samples and flac.is_joined(part.path):
        raise joined(part.path)
    end = max(0, part.size - _ID3V1_BYTES)
    tag = part.read(end, 3) == b'TAG'  # libFLAC takes it for damage
    if samples < stream.samples or (samples == stream.samples and not tag):
        return None  # what is cut is found in reading it
    head = flac.with_samples(header, samples)
    end = end if tag else part.size
    return Contents(part.show(head, len(head), end), end, 0)


def _first_frame(part: _Part) -> bytes:
    """The header of the frame that comes first, after the blocks of metadata."""
    place = len(b'fLaC')
    for _ in range(_MOST_CHUNKS):
        block = part.read(place, 4)
        place += 4 + int.from_bytes(block[1:], 'big')
        if block[0] & 128:  # the last
            break
    return part.read(place, flac.FRAME_HEADER_BYTES)


def truncated(path: PathLike, held: int, promised: int, unit: str = 'samples') -> InputError:
    """The error for a file that ends early."""
    return InputError(
        f'{path} ends after {held} {unit} of {promised}: '
        'the file is truncated; replace or remove it'
    )


def joined(path: PathLike) -> InputError:
    """The error for several streams in one file, of which libsndfile would read the first."""
    return InputError(
        f'{path} holds several streams in a row, which cannot be read as one: '
        f'split it, or convert it (ffmpeg -i {path} FILE.flac)'
    )

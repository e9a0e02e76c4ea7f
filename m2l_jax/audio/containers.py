"""Containers of PCM and FLAC: the true end of their audio, whatever sizes their header states.

Recorders that lose power, writers into pipes, and 32-bit sizes of more than 4 GiB leave a size
that is 0, unknown, too small or wrapped; libsndfile believes it, or refuses the file.
"""

import dataclasses
import os
import re
import struct
from typing import BinaryIO

from m2l_jax.audio import flac, tags
from m2l_jax.audio.ranges import Ranges
from m2l_jax.interface.errors import InputError

PathLike = str | os.PathLike[str]

# Bytes after the audio that are not worth a word: padding, or a header counted as audio.
_FEW = 128
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
    """Audio of a file.

    Attributes:
      shown: the file as libsndfile reads all of it; None if it does so anyway.
      size: bytes of audio that will be read.
      left_out: bytes after them that may be audio too.
      unstated: bytes of `size` beyond what the header states, where it states a size.
    """

    shown: BinaryIO | None
    size: int
    left_out: int = 0
    unstated: int = 0

    def warning(self, seconds: float) -> str:
        """Doubts about the end of a file of which `seconds` are read; '' if there are none."""
        if self.left_out:
            left_out = seconds * self.left_out / max(1, self.size)
            return (
                f'{self.left_out} bytes follow the audio that the header counts and are left out, '
                f'{left_out:.1f} s if they are audio'
            )
        if self.unstated:
            return (
                f'the header states {self.size - self.unstated} bytes of audio and '
                f'{self.unstated} follow, which are read as audio too, '
                f'{seconds * self.unstated / self.size:.1f} s'
            )
        return ''


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
# Of the samples: of floating point, A-law and mu-law, which the chunk may name at its end.
_W64_FORMAT = b'fmt ' + _GUID_END
_EXTENSIBLE, _EXTENSION = b'\xfe\xff', 24
_NAMED_FORMATS = (b'\3\0', b'\6\0', b'\7\0')
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
_NAME = re.compile(rb'[\xa9 -~][ -~]{3}')
# Chunks without audio, in lower case and without padding: one of them ends the audio before it,
# however its own size may be.
_KNOWN = frozenset(
    b'list id3 bext ixml cue smpl fact junk pad fllr peak afsp disp _pmx axml chna levl minf umid '
    b'anno name auth (c) comt mark inst appl midi elm1 regn cart plst labl note strc acid '
    b'mext qlty smed iptc r64m info strg chan free uuid kuki edct \xa9nam \xa9art \xa9alb'.split()
)
_LONGEST_HEAD = 1 << 26


def look_into(path: PathLike) -> Contents | None:
    """Finds all audio of a file; None for other formats, and where the header misleads no reader.

    Raises:
      InputError: for a truncated file, for several files in one, and for sizes that leave the end
        of the audio open.
    """
    with open(path, 'rb') as file:
        base = tags.skip(file)
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
    """Compares a file's size with the `values`, of all channels, that libsndfile reads.

    None for a `kind`, a format and a subtype, with which others compare them.
    """
    if kind not in _VALUE_BYTES:
        return None
    size = int(values * _VALUE_BYTES[kind])
    left_out = os.path.getsize(path) - size
    return Contents(None, size, left_out if left_out > tags.MOST_ZEROS else 0)


@dataclasses.dataclass(frozen=True)
class _Part:
    """An open file without the tags before it: places count from `base`."""

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
    wraps = number.size == 4 and not wide
    end, left_out, unstated = _find_end(part, kind, begin, size, outer, wraps)
    shown = None
    misled = end != begin + size or left_out or (kind.cut and end < part.size)
    unread = magic == b'BW64' or (kind is _W64 and _extended_format(part.read(0, begin)))
    if misled or unread or part.base:
        shown = part.show(_true_head(part, kind, begin, end, wide), begin, end)
    return Contents(shown, end - begin, left_out, unstated)


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
) -> tuple[int, int, int]:
    """The end of the audio, bytes after it that may be audio, and bytes before it not stated.

    Args:
      part: the file.
      kind: its container.
      begin: where the audio begins.
      size: its bytes, as stated.
      outer: the bytes of all, as stated; None if they are not.
      wraps: true of sizes of 32 bits.

    Raises:
      InputError: if the file ends before the audio, or after it in a way that leaves its end open.
    """
    empty, unknown = size <= kind.inner, _is_unknown(size)
    stated = begin + max(0, size)
    if stated > part.size:
        if not unknown and not kind.packets and stated > part.size + _FEW:
            raise truncated(part.path, part.size - begin, size, 'bytes')
        return part.size, 0, 0
    following = _audio_after(part, kind, stated, 0 if empty else _FEW)
    if following is not None:
        return stated, following, 0
    if empty or unknown or kind.packets:
        return part.size, 0, 0
    if wraps:
        for end in range(stated + _WRAP, part.size + 1, _WRAP):
            if _audio_after(part, kind, end, _FEW) == 0:
                return end, 0, 0
    rest = part.size - stated
    if outer is not None and _reaches_end(part.size - kind.outer_excess, outer, wraps):
        # What is within the whole, and is no chunk, can only be audio.
        return part.size, 0, rest if not wraps or rest < _WRAP - _FEW else 0
    if wraps and rest > _WRAP - _FEW:
        raise InputError(
            f'{part.path} is longer than its header can say, {part.size} bytes and not {size}: '
            'convert it to RF64 or FLAC'
        )
    return stated, rest, 0


def _reaches_end(size: int, outer: int, wraps: bool) -> bool:
    """True if a file has no more than the size that is stated of the whole."""
    beyond = size - outer
    if wraps:
        beyond = (beyond + _FEW) % _WRAP - _FEW
    return outer > 0 and not _is_unknown(outer) and beyond <= _FEW


def _is_unknown(size: int) -> bool:
    return any(low <= size < high for low, high in _UNKNOWN_SIZES)


def _audio_after(part: _Part, kind: _Kind, stated: int, few: int) -> int | None:
    """Bytes of audio in the chunks that follow the audio; None if what follows may be audio.

    Args:
      part: the file.
      kind: its container.
      stated: where the audio ends.
      few: bytes that may follow and count for nothing; 0 where zeros are audio.

    Raises:
      InputError: if another file follows.
    """
    found, is_known, end = 0, False, stated
    for _ in range(_MOST_CHUNKS):
        places = sorted({end, end + -end % max(2, kind.align)})  # not all writers pad
        if any(_is_trailer(part, place, few) for place in places):
            return found
        chunks = filter(None, (_read_chunk(part, kind, place) for place in places))
        name, begin, end = next(chunks, (b'', 0, 0))
        is_known = is_known or _is_known(name) or name == kind.audio
        if not name or end > part.size + 1:
            return found if is_known else None
        if name == kind.audio:
            found += end - begin
    return None


def _read_chunk(part: _Part, kind: _Kind, place: int) -> tuple[bytes, int, int] | None:
    """Name, first byte and end of a chunk; None if it is not known and does not fit."""
    name, size = kind.chunk.unpack(part.read(place, kind.chunk.size))
    begin = place + kind.chunk.size
    end = begin + size - kind.counted
    fits = _NAME.match(name) and begin <= end <= part.size + 1
    return (name, begin, max(begin, end)) if fits or _is_known(name) else None


def _is_known(name: bytes) -> bool:
    return name[:4].rstrip(b' \0').lower() in _KNOWN


def _is_trailer(part: _Part, place: int, few: int) -> bool:
    """True if a file ends at a place, but for tags, zeros and a few bytes.

    Raises:
      InputError: if another file begins there.
    """
    rest = part.size - place
    if rest <= few:
        return True
    after = tags.skip(part.file, part.base + place) - part.base
    if part.read(after, 16).startswith(_FILE_MARKS):
        raise joined(part.path)
    is_trailer = tags.is_trailer(part.file, part.base + place, part.base + part.size)
    return is_trailer and (few > 0 or rest <= 0 or any(part.read(place, 1)))


def _true_head(part: _Part, kind: _Kind, begin: int, end: int, wide: bool) -> bytes:
    """All before the audio, with sizes that are true of a file that ends with the audio."""
    head, size = bytearray(part.read(0, begin)), end - begin
    if kind is _W64 and (name := _extended_format(head)):
        place = head.find(_W64_FORMAT) + kind.chunk.size
        head[place : place + len(name)] = name
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


def _extended_format(head: bytes) -> bytes:
    """Name of the format that a Wave64's extension holds and libsndfile takes for PCM; or b''."""
    form = head[head.find(_W64_FORMAT) + _W64.chunk.size :]
    name = form[_EXTENSION : _EXTENSION + 2]
    return name if form.startswith(_EXTENSIBLE) and name in _NAMED_FORMATS else b''


def _look_into_au(part: _Part, order: str) -> Contents | None:
    begin, stated = struct.unpack(f'{order}II', part.read(4, 8))
    size = part.size - begin
    if begin > _LONGEST_HEAD or size < 0:
        return None
    is_stated = 0 < stated < size and not _is_unknown(stated)
    is_right = stated >= size and not _is_unknown(stated)
    if is_right or (0 < stated < size and _is_trailer(part, begin + stated, _FEW)):
        return Contents(part.show(b'', 0, part.size), size) if part.base else None
    head = bytearray(part.read(0, begin))
    head[8:12] = _ELSEWHERE  # up to the end of the file
    shown = part.show(bytes(head), begin, part.size)
    return Contents(shown, size, unstated=size - stated if is_stated else 0)


def _look_into_flac(part: _Part) -> Contents | None:
    header = part.read(0, flac.HEADER_BYTES)
    stream = flac.parse(header)
    if stream is None:
        return None
    frames = flac.find(part.path, part.base)
    if frames.is_joined:
        raise joined(part.path)
    if frames.is_cut and frames.samples >= stream.samples:  # other cuts are found in reading
        raise InputError(
            f'{part.path} is damaged at its end, sample {frames.samples}: a frame is cut, or bytes '
            'follow that are no audio; replace or remove it'
        )
    more = frames.samples > stream.samples
    if not more and frames.end == part.size and not part.base:
        return None
    head = flac.with_samples(header, frames.samples) if more else header
    return Contents(part.show(head, len(head), frames.end), frames.end)


def truncated(path: PathLike, held: int, promised: int, unit: str = 'samples') -> InputError:
    """The error for a file that ends early."""
    return InputError(
        f'{path} ends after {held} {unit} of {promised}: '
        'the file is truncated; replace or remove it'
    )


def joined(path: PathLike, is_converted: bool = False) -> InputError:
    """The error for several streams in one file, all of which ffmpeg reads if `is_converted`."""
    convert = f', or convert it (ffmpeg -i {path} FILE.flac)' if is_converted else ''
    return InputError(
        f'{path} holds several streams in a row, which cannot be read as one: '
        f'split it into one file for each{convert}'
    )

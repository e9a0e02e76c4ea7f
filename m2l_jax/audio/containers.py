"""Containers of PCM and FLAC: the true end of their audio, whatever sizes their header states.

Recorders that lose power, writers into pipes, and 32-bit sizes of more than 4 GiB leave a size
that is 0, unknown, too small or wrapped; libsndfile believes it, or refuses the file.
"""

import os
import re
import struct
from typing import NamedTuple

from m2l_jax.audio import flac
from m2l_jax.audio.parts import FEW, MOST_ZEROS, Contents, Part, PathLike, skip_tags, truncated
from m2l_jax.interface.errors import InputError

_MOST_CHUNKS = 1000
_WRAP = 1 << 32
# About what writers into a pipe state: they cannot come back to fill the size in.
_UNKNOWN_SIZES = (
    range(0x7F00_0000, 0x7F01_0000),
    range(0x7FFF_0000, 0x8001_0000),
    range(0xFFFF_0000, 0x1_0001_0000),
    range(1 << 62, 1 << 65),
)
_GUID_END = bytes.fromhex('f3acd3118cd100c04f8edb8a')


class _Kind(NamedTuple):
    """A container of chunks, each of a name, a size and as many bytes.

    Attributes:
      chunk: struct of a chunk's name and size.
      audio: name of the chunk that holds the audio.
      first: place of the first chunk.
      outer: place of the size of the whole; None if it is not stated.
      outer_excess: bytes of the file that this size does not count.
      inner: bytes at the beginning of the audio chunk that are not audio.
      counted: bytes of its header that a chunk's size counts.
      align: chunks begin at multiples of it.
      cut: libsndfile takes what follows the audio for audio.
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


_LITTLE, _BIG = struct.Struct('<4sI'), struct.Struct('>4sI')
_W64 = _Kind(struct.Struct('<16sq'), b'data' + _GUID_END, 40, 16, 0, 0, 24, 8, cut=True)
_KINDS = {  # by a file's first four bytes and those from the eighth on
    **dict.fromkeys((b'RIFFWAVE', b'RF64WAVE', b'BW64WAVE'), _Kind(_LITTLE, b'data')),
    b'RIFXWAVE': _Kind(_BIG, b'data'),
    **dict.fromkeys((b'FORMAIFF', b'FORMAIFC'), _Kind(_BIG, b'SSND', inner=8)),
    **dict.fromkeys((b'FORM8SVX', b'FORM16SV'), _Kind(_BIG, b'BODY', cut=True)),
    b'caffdesc': _Kind(struct.Struct('>4sq'), b'data', 8, None, inner=4, align=1),
    b'riff\xa5\xd6\x28\xdb': _W64,
}
# A table counts the audio, whatever the size of its chunk.
_CAF_FORMAT, _OF_PACKETS = slice(28, 32), b'alac'
# Of the samples: of floating point, A-law and mu-law, which the chunk may name at its end.
_W64_FORMAT = b'fmt ' + _GUID_END
_EXTENSIBLE, _EXTENSION = b'\xfe\xff', 24
_NAMED_FORMATS = (b'\3\0', b'\6\0', b'\7\0')
# RF64: a chunk that comes first holds the sizes, which the 32 bits elsewhere leave out.
_DS64_PLACE = 12
_DS64_EMPTY = struct.pack('<4sI28x', b'ds64', 28)
_DS64_SIZES, _DS64_SIZES_PLACE = struct.Struct('<QQ'), 20
_ELSEWHERE = b'\xff\xff\xff\xff'
# Bytes of a value without chunks; an SDS packs 7 bits into a byte, and 120 of them into 127.
_VALUE_BYTES = {
    ('MAT4', 'PCM_16'): 2,
    ('MAT4', 'PCM_32'): 4,
    ('MAT4', 'FLOAT'): 4,
    ('MAT4', 'DOUBLE'): 8,
    ('SDS', 'PCM_S8'): 127 / 60,
    ('SDS', 'PCM_16'): 127 / 40,
    ('SDS', 'PCM_24'): 127 / 30,
}
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
        base = skip_tags(file)
        part = Part(path, file, base, os.fstat(file.fileno()).st_size - base)
        start = part.read(0, 32)
        if kind := _KINDS.get(start[:4] + start[8:12]):
            return _look_into_chunks(part, kind, start)
        if start[:4] in (b'.snd', b'dns.'):
            return _look_into_au(part, '>' if start[:4] == b'.snd' else '<')
        return flac.look_into(part) if start[:4] == b'fLaC' else None


def look_behind(path: PathLike, kind: tuple[str, str], values: int) -> Contents | None:
    """Compares a file's size with the `values`, of all channels, that libsndfile reads.

    None for a `kind`, a format and a subtype, with which others compare them.
    """
    if kind not in _VALUE_BYTES:
        return None
    size = int(values * _VALUE_BYTES[kind])
    left_out = os.path.getsize(path) - size
    return Contents(None, size, left_out if left_out > MOST_ZEROS else 0)


def _look_into_chunks(part: Part, kind: _Kind, start: bytes) -> Contents | None:
    begin = _find_audio(part, kind)
    if begin is None:
        return None
    number = struct.Struct(kind.chunk.format[0] + kind.chunk.format[-1])
    size = part.unpack(number, begin - number.size)[0] - kind.counted
    outer = part.unpack(number, kind.outer)[0] if kind.outer else None
    wide = start[:4] in (b'RF64', b'BW64')
    if wide:
        outer, data = part.unpack(_DS64_SIZES, _DS64_SIZES_PLACE)
        size = data if size == _WRAP - 1 else size
    wraps = number.size == 4 and not wide
    has_packets = start[:4] == b'caff' and start[_CAF_FORMAT] == _OF_PACKETS
    is_unknown = has_packets or _is_unknown(size)
    end, left_out, unstated = _find_end(part, kind, begin, size, outer, wraps, is_unknown)
    misled = end != begin + size or left_out or (kind.cut and end < part.size)
    unread = start[:4] == b'BW64' or (kind is _W64 and _extended_format(part.read(0, begin)))
    shown = None
    if misled or unread or part.base:
        shown = part.show(_true_head(part, kind, number, begin, end, wide), begin, end)
    return Contents(shown, end - begin, left_out, unstated)


def _find_audio(part: Part, kind: _Kind) -> int | None:
    """Place where the bytes of the audio chunk begin; None if there is no such chunk."""
    place = kind.first
    for _ in range(_MOST_CHUNKS):
        name, size = part.unpack(kind.chunk, place)
        place += kind.chunk.size
        if name == kind.audio:
            return place if place <= min(part.size, _LONGEST_HEAD) else None
        place += max(0, size - kind.counted)
        place += -place % kind.align
        if place >= part.size:
            break
    return None


def _find_end(
    part: Part,
    kind: _Kind,
    begin: int,
    size: int,
    outer: int | None,
    wraps: bool,
    is_unknown: bool,
) -> tuple[int, int, int]:
    """The end of the audio, bytes after it that may be audio, and bytes before it not stated.

    `size` and `outer` are the stated bytes of the audio that starts at `begin` and of the whole;
    they have 32 bits if it `wraps`. Raises an InputError for a file that ends before the audio, or
    after it in a way that leaves its end open.
    """
    is_empty, stated = size <= kind.inner, begin + max(0, size)
    if stated > part.size:
        if not is_unknown and stated > part.size + FEW:
            raise truncated(part.path, part.size - begin, size, 'bytes')
        return part.size, 0, 0
    following = _audio_after(part, kind, stated, 0 if is_empty else FEW)
    if following is not None:
        return stated, following, 0
    if is_empty or is_unknown:
        return part.size, 0, 0
    if wraps:
        for end in range(stated + _WRAP, part.size + 1, _WRAP):
            if _audio_after(part, kind, end, FEW) == 0:
                return end, 0, 0
    rest = part.size - stated
    if outer is not None and _reaches_end(part.size - kind.outer_excess, outer, wraps):
        # What is within the whole, and is no chunk, can only be audio.
        return part.size, 0, rest if not wraps or rest < _WRAP - FEW else 0
    if wraps and rest > _WRAP - FEW:
        raise InputError(
            f'{part.path} is longer than its header can say, {part.size} bytes and not {size}: '
            'convert it to RF64 or FLAC'
        )
    return stated, rest, 0


def _reaches_end(size: int, outer: int, wraps: bool) -> bool:
    """True if a file has no more than the size that is stated of the whole."""
    beyond = size - outer
    if wraps:
        beyond = (beyond + FEW) % _WRAP - FEW
    return outer > 0 and not _is_unknown(outer) and beyond <= FEW


def _is_unknown(size: int) -> bool:
    return any(size in sizes for sizes in _UNKNOWN_SIZES)


def _audio_after(part: Part, kind: _Kind, end: int, few: int) -> int | None:
    """Bytes of audio in the chunks that follow the audio; None if what follows may be audio.

    `few` bytes may follow its end and count for nothing; 0 where zeros are audio. Raises an
    InputError if another file follows.
    """
    found, is_known = 0, False
    for _ in range(_MOST_CHUNKS):
        places = sorted({end, end + -end % max(2, kind.align)})  # not all writers pad
        if any(part.ends_at(place, few) for place in places):
            return found
        chunks = filter(None, (_read_chunk(part, kind, place) for place in places))
        name, begin, end = next(chunks, (b'', 0, 0))
        is_known = is_known or _is_known(name) or name == kind.audio
        if not name or end > part.size + 1:
            return found if is_known else None
        if name == kind.audio:
            found += end - begin
    return None


def _read_chunk(part: Part, kind: _Kind, place: int) -> tuple[bytes, int, int] | None:
    """Name, first byte and end of a chunk; None if it is not known and does not fit."""
    name, size = part.unpack(kind.chunk, place)
    begin = place + kind.chunk.size
    end = begin + size - kind.counted
    fits = _NAME.match(name) and begin <= end <= part.size + 1
    return (name, begin, max(begin, end)) if fits or _is_known(name) else None


def _is_known(name: bytes) -> bool:
    return name[:4].rstrip(b' \0').lower() in _KNOWN


def _true_head(
    part: Part, kind: _Kind, number: struct.Struct, begin: int, end: int, wide: bool
) -> bytes:
    """All before the audio, with sizes that are true of a file that ends with the audio."""
    head, size = bytearray(part.read(0, begin)), end - begin
    if kind is _W64 and (name := _extended_format(head)):
        place = head.find(_W64_FORMAT) + kind.chunk.size
        head[place : place + len(name)] = name
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


def _look_into_au(part: Part, order: str) -> Contents | None:
    begin, stated = part.unpack(struct.Struct(f'{order}II'), 4)
    size = part.size - begin
    if begin > _LONGEST_HEAD or size < 0:
        return None
    is_short = 0 < stated < size
    is_right = stated >= size and not _is_unknown(stated)
    if is_right or (is_short and part.ends_at(begin + stated, FEW)):
        return Contents(part.show(b'', 0, part.size), size) if part.base else None
    head = bytearray(part.read(0, begin))
    head[8:12] = _ELSEWHERE  # up to the end of the file
    unstated = size - stated if is_short and not _is_unknown(stated) else 0
    return Contents(part.show(bytes(head), begin, part.size), size, unstated=unstated)

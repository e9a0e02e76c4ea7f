"""Containers of PCM and FLAC: finds the end of the audio where the sizes in a header are wrong.

Recorders that lose power, writers into pipes, and 32-bit sizes of more than 4 GiB leave a size
that is 0, unknown, too small or wrapped. libsndfile believes it, or refuses the file.
"""

import os
import re
import struct
from typing import NamedTuple

from m2l_jax.audio import flac
from m2l_jax.audio.parts import FEW, MOST_ZEROS, Contents, Part, PathLike, skip_tags, truncated
from m2l_jax.interface.errors import InputError

_MOST_CHUNKS = 1000
_LONGEST_HEAD = 1 << 26
_WRAP = 1 << 32
# Approximate sizes that writers into a pipe state: they cannot go back to fill the size in.
_UNKNOWN_SIZES = (
    range(0x7F00_0000, 0x7F01_0000),
    range(0x7FFF_0000, 0x8001_0000),
    range(0xFFFF_0000, 0x1_0001_0000),
    range(1 << 62, 1 << 65),
)
_GUID_END = bytes.fromhex('f3acd3118cd100c04f8edb8a')


class _Kind(NamedTuple):
    """A container of chunks, each with a name, a size and content; AU has a header alone.

    Attributes:
      number: struct of a size.
      audio: name of the chunk that holds the audio; empty for AU.
      first: place of the first chunk; for AU, of the number that says where the audio begins.
      outer: place of the size of the whole; None if it is not stated.
      outer_excess: bytes of the file that this size does not count.
      inner: bytes at the beginning of the audio chunk that are not audio.
      counted: bytes of its header that a chunk's size counts.
      align: chunks begin at multiples of it.
      wraps: sizes have 32 bits, and begin again at 0 after 4 GiB.
      cut: libsndfile takes what follows the audio for audio.
    """

    number: struct.Struct
    audio: bytes
    first: int = 12
    outer: int | None = 4
    outer_excess: int = 8
    inner: int = 0
    counted: int = 0
    align: int = 2
    wraps: bool = True
    cut: bool = False


_LITTLE, _BIG = struct.Struct('<I'), struct.Struct('>I')
_RF64 = _Kind(_LITTLE, b'data', wraps=False)
_AIFF, _SVX = _Kind(_BIG, b'SSND', inner=8), _Kind(_BIG, b'BODY', cut=True)
_W64 = _Kind(struct.Struct('<q'), b'data' + _GUID_END, 40, 16, 0, 0, 24, 8, False, cut=True)
_KINDS = {  # by the first four bytes of a file, or by these and the four from the eighth on
    b'RIFFWAVE': _Kind(_LITTLE, b'data'),
    b'RIFXWAVE': _Kind(_BIG, b'data'),
    **dict.fromkeys((b'RF64WAVE', b'BW64WAVE'), _RF64),
    **dict.fromkeys((b'FORMAIFF', b'FORMAIFC'), _AIFF),
    **dict.fromkeys((b'FORM8SVX', b'FORM16SV'), _SVX),
    b'caffdesc': _Kind(struct.Struct('>q'), b'data', 8, None, inner=4, align=1, wraps=False),
    b'riff\xa5\xd6\x28\xdb': _W64,
    b'.snd': _Kind(_BIG, b'', 4, None, wraps=False),
    b'dns.': _Kind(_LITTLE, b'', 4, None, wraps=False),
}
_ALAC = b'caffalac'
_W64_FORMAT = b'fmt ' + _GUID_END
_EXTENSIBLE, _EXTENDED_FORMAT = b'\xfe\xff', 24
# RF64: the first chunk holds the 64-bit sizes of the whole and of the audio.
_DS64_PLACE, _DS64_EMPTY = 12, struct.pack('<4sI28x', b'ds64', 28)
_DS64_SIZES, _DS64_SIZES_PLACE = struct.Struct('<QQ'), 20
_ELSEWHERE = b'\xff\xff\xff\xff'
# Bytes of a value without chunks; SDS packs 7 bits into a byte, and 120 of them into 127.
_VALUE_BYTES = {
    'MAT4': {'PCM_16': 2, 'PCM_32': 4, 'FLOAT': 4, 'DOUBLE': 8},
    'SDS': {'PCM_S8': 127 / 60, 'PCM_16': 127 / 40, 'PCM_24': 127 / 30},
}
_NAME = re.compile(rb'[\xa9 -~][ -~]{3}')
# Names, in lower case and without padding, of chunks without audio. One of them ends the audio
# before it, even if its own size is wrong.
_KNOWN = frozenset(
    b'list id3 bext ixml cue smpl fact junk pad fllr peak afsp disp _pmx axml chna levl minf umid '
    b'anno name auth (c) comt mark inst appl midi elm1 regn cart plst labl note strc acid '
    b'mext qlty smed iptc r64m info strg chan free uuid kuki edct \xa9nam \xa9art \xa9alb'.split()
)


def look_into(path: PathLike) -> Contents | None:
    """Finds all audio of a file; None for other formats.

    Raises:
      InputError: for a truncated file, for several files in one, and for sizes that leave the end
        of the audio open.
    """
    with open(path, 'rb') as file:
        base = skip_tags(file)
        part = Part(path, file, base, os.fstat(file.fileno()).st_size - base)
        start = part.read(0, 32)
        kind = _KINDS.get(start[:4]) or _KINDS.get(start[:4] + start[8:12])
        if kind:
            return _look_into_chunks(part, kind, start)
        return flac.look_into(part) if start[:4] == b'fLaC' else None


def compare_size(path: PathLike, form: str, subtype: str, values: int) -> Contents | None:
    """Compares the size of a file without chunks with the `values`, of all channels, that are read.

    None for a format that others check.
    """
    width = _VALUE_BYTES.get(form, {}).get(subtype)
    if width is None:
        return None
    size = int(values * width)
    left_out = os.path.getsize(path) - size
    return Contents(None, size, left_out if left_out > MOST_ZEROS else 0)


def _look_into_chunks(part: Part, kind: _Kind, start: bytes) -> Contents | None:
    begin, size_at = _find_audio(part, kind)
    outer = part.unpack(kind.number, kind.outer)[0] if kind.outer else 0
    if not size_at or begin > min(part.size, _LONGEST_HEAD):
        if kind is _W64 and outer > part.size:  # libsndfile would read no samples
            raise truncated(part.path, part.size, outer, 'bytes')
        return None
    size = part.unpack(kind.number, size_at)[0] - kind.counted
    if kind is _RF64:
        outer, data = part.unpack(_DS64_SIZES, _DS64_SIZES_PLACE)
        size = data if size == _WRAP - 1 else size
    # In ALAC, a table counts the audio, and its chunk may state any size.
    is_unknown = _is_unknown(size) or start[:4] + start[28:32] == _ALAC
    end, left_out, unstated = _find_end(part, kind, begin, size, outer, is_unknown)
    head = part.read(0, begin)
    true_head = _plain_format(head) if kind is _W64 else head
    if end != begin + size or start[:4] == b'BW64':
        true_head = _true_head(part, kind, true_head, size_at, end)
    misleads = true_head != head or (end < part.size and (kind.cut or left_out))
    shown = part.show(true_head, begin, end) if misleads or part.base else None
    return Contents(shown, end - begin, left_out, unstated)


def _find_audio(part: Part, kind: _Kind) -> tuple[int, int]:
    """Places of the audio and of the number that states its size; 0 if there is no audio."""
    place = kind.first
    if not kind.audio:
        return part.unpack(kind.number, place)[0], place + kind.number.size
    for _ in range(_MOST_CHUNKS):
        name, size, begin = _read_chunk(part, kind, place)
        if name == kind.audio:
            return begin, begin - kind.number.size
        place = begin + max(0, size)
        place += -place % kind.align
        if place >= part.size:
            break
    return 0, 0


def _read_chunk(part: Part, kind: _Kind, place: int) -> tuple[bytes, int, int]:
    """Name of a chunk, bytes of its content, and their place."""
    name = part.read(place, len(kind.audio))
    place += len(name)
    return name, part.unpack(kind.number, place)[0] - kind.counted, place + kind.number.size


def _find_end(
    part: Part, kind: _Kind, begin: int, size: int, outer: int, is_unknown: bool
) -> tuple[int, int, int]:
    """Finds the end of the audio, counts bytes after it that may be audio, and those not stated.

    `size` and `outer` are the stated bytes of the audio, which starts at `begin`, and of the whole.
    Raises an InputError for a file that ends before the audio, or whose sizes leave its end open.
    """
    is_empty, end = size <= kind.inner, begin + max(0, size)
    if end > part.size:
        if not is_unknown and end > part.size + FEW:
            raise truncated(part.path, part.size - begin, size, 'bytes')
        return part.size, 0, 0
    following = _audio_after(part, kind, end, 0 if is_empty else FEW)
    if following is not None:
        return end, following, 0
    if is_empty or is_unknown:
        return part.size, 0, 0
    if kind.wraps:
        for later in range(end + _WRAP, part.size + 1, _WRAP):
            if _audio_after(part, kind, later, FEW) == 0:
                return later, 0, 0
    rest = part.size - end
    if not kind.audio or _is_within(part.size - kind.outer_excess, outer, kind.wraps):
        # What is within the whole, and is no chunk, can only be audio.
        return part.size, 0, rest if not kind.wraps or rest < _WRAP - FEW else 0
    if kind.wraps and rest > _WRAP - FEW:
        raise InputError(
            f'{part.path} is longer than its header can say, {part.size} bytes and not {size}: '
            'convert it to RF64 or FLAC'
        )
    return end, rest, 0


def _is_within(size: int, outer: int, wraps: bool) -> bool:
    """True if a file has no more than the size that is stated of the whole."""
    beyond = (size - outer + FEW) % _WRAP - FEW if wraps else size - outer
    return outer > 0 and not _is_unknown(outer) and beyond <= FEW


def _is_unknown(size: int) -> bool:
    return any(size in sizes for sizes in _UNKNOWN_SIZES)


def _audio_after(part: Part, kind: _Kind, end: int, few: int) -> int | None:
    """Counts audio in the chunks after the audio; None if what follows may be audio, and no chunk.

    `few` bytes may follow its end and count for nothing; 0 where zeros are audio. Raises an
    InputError if another file follows.
    """
    found, is_known = 0, False
    for _ in range(_MOST_CHUNKS):
        places = sorted({end, end + -end % max(2, kind.align)})  # not all writers pad
        if any(part.ends_at(place, few) for place in places):
            return found
        chunks = (_read_chunk(part, kind, place) for place in places)
        name, size, begin = next(
            (chunk for chunk in chunks if _is_known(chunk[0]) or _fits(part, *chunk)), (b'', 0, 0)
        )
        end = max(begin, begin + size)
        is_known = is_known or _is_known(name) or name == kind.audio != b''
        if not name or end > part.size + 1:
            return found if is_known else None
        if name == kind.audio:
            found += end - begin
    return None


def _fits(part: Part, name: bytes, size: int, begin: int) -> bool:
    return bool(_NAME.match(name)) and 0 <= size <= part.size + 1 - begin


def _is_known(name: bytes) -> bool:
    return name[:4].rstrip(b' \0').lower() in _KNOWN


def _true_head(part: Part, kind: _Kind, head: bytes, size_at: int, end: int) -> bytes:
    """Makes the bytes before the audio state sizes that are true of a file that ends with it."""
    size, changed = end - len(head), bytearray(head)
    if kind.wraps and end >= _WRAP:
        if head[:4] != b'RIFF':
            raise InputError(
                f'{part.path} is longer than {_WRAP} bytes, which its format cannot say: '
                'convert it to RF64 or FLAC'
            )
        kind = _RF64
        changed[_DS64_PLACE:_DS64_PLACE] = _DS64_EMPTY
    if kind is _RF64:
        _DS64_SIZES.pack_into(changed, _DS64_SIZES_PLACE, len(changed) + size - 8, size)
        changed[:8] = b'RF64' + _ELSEWHERE
        changed[-4:] = _ELSEWHERE
    elif kind.audio:
        kind.number.pack_into(changed, size_at, size + kind.counted)
    else:
        changed[size_at : size_at + 4] = _ELSEWHERE  # AU: up to the end of the file
    return bytes(changed)


def _plain_format(head: bytes) -> bytes:
    """Replaces a Wave64's extensible format, which is taken for PCM, by the one that it names."""
    place = head.find(_W64_FORMAT) + _W64.counted
    extended = place + _EXTENDED_FORMAT
    if head[place : place + 2] != _EXTENSIBLE:
        return head
    return head[:place] + head[extended : extended + 2] + head[place + 2 :]

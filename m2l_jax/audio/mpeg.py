"""MPEG audio, layers I to III (ISO 11172-3, 13818-3 and MPEG 2.5): finds all frames of a file.

Decoders take the length from the first frame, by a statement or a guess, and stop at bytes that are
no frame. This module reads the headers of all frames. libsndfile is shown these frames alone, with
their true number.
"""

import functools
import itertools
import os
import re
import struct
from typing import BinaryIO, NamedTuple

from m2l_jax.audio.parts import (
    LONGEST_MARK,
    TAG_MARKS,
    PathLike,
    Ranges,
    once_per_file,
    skip_id3,
    skip_tags,
)

# kbit/s by the four bits of a header, from 1 on; 0 and 15 give a frame no length.
_RATES_2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_BIT_RATES = {
    (1, 1): tuple(range(32, 449, 32)),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): _RATES_2,
    (2, 3): _RATES_2,
}
_SAMPLE_RATES = (44_100, 48_000, 32_000)
_RATE_DIVISORS = {3: 1, 2: 2, 0: 4}  # by the bits of the version: MPEG 1, 2 and 2.5
_MONO = 0xC0

MARKS = (b'ID3', b'\xff')  # at the beginning of most files
_SYNC = re.compile(rb'\xff[\xe2-\xff]')
_HEADER_BYTES = 4
_BLOCK = 1 << 20
# Most bytes before the first frame; other decoders look as far.
_JUNK_BEFORE = 1 << 16
# Headers in a row, each where the one before says, that are no chance.
_SURE = 4
_FEW = 100  # this fraction of the bytes of all frames may follow them

# A first frame without sound may state the length, near its side information.
_LENGTH_MARKS = re.compile(b'Xing|Info|VBRI')
_MARK_WITHIN = 42
_HAS_FRAMES, _HAS_BYTES = 1, 2
_FIELD_BYTES = {1: 4, 2: 4, 4: 100, 8: 4}  # of a Xing tag, by the flag that says it is there
_ENCODER_TO_PADDING = 22

# The highest bit rate over the lowest: the most that a guess from one frame can be wrong.
_MOST_STRETCH = 40


class Kind(NamedTuple):
    """Fields that all headers of a stream share; `version` is 1, or 2 for MPEG 2 and 2.5."""

    version: int
    layer: int
    sample_rate: int
    is_mono: bool

    @property
    def frame_samples(self) -> int:
        """Samples of each channel in a frame."""
        if self.layer == 1:
            return 384
        return 576 if (self.version, self.layer) == (2, 3) else 1152


class Run(NamedTuple):
    """Frames of one kind without gaps, from byte `begin` to byte `end`."""

    kind: Kind
    begin: int
    end: int
    frames: int


class LengthTag(NamedTuple):
    """A first frame that states the length.

    Attributes:
      content: its bytes.
      frames: stated number of frames that follow; 0 if not stated.
      bytes: stated bytes of all frames; 0 if not stated.
      frames_at: place of `frames` in `content`; None if libsndfile does not read it.
      bytes_at: place of `bytes`.
      padding_at: place of the 12 bits for the encoder's padding; None without.
    """

    content: bytes
    frames: int
    bytes: int
    frames_at: int | None = None
    bytes_at: int | None = None
    padding_at: int | None = None

    def restated(self, frames: int, size: int) -> bytes:
        """Changes the stated length to `frames` of `size` bytes."""
        content = bytearray(self.content)
        struct.pack_into('>I', content, self.frames_at, frames)
        if self.bytes:
            struct.pack_into('>I', content, self.bytes_at, min(size + len(content), 0xFFFF_FFFF))
        # More follows than the stream that was padded.
        if self.padding_at is not None and frames > self.frames:
            content[self.padding_at] &= 0xF0
            content[self.padding_at + 1] = 0
        return bytes(content)


class Layout(NamedTuple):
    """The frames of a file.

    Attributes:
      tag: the first, if it states the length.
      runs: the others; empty if `tag` is right, so that libsndfile finds them all.
    """

    tag: LengthTag | None
    runs: tuple[Run, ...] = ()

    @property
    def frames(self) -> int:
        """Frames in all runs."""
        return sum(run.frames for run in self.runs)

    @property
    def samples(self) -> int:
        """Samples of each channel in all runs."""
        return sum(run.frames * run.kind.frame_samples for run in self.runs)

    @property
    def states_samples(self) -> bool:
        """True if libsndfile reads the number of frames in `tag`."""
        return self.tag is not None and self.tag.frames_at is not None

    @property
    def promised(self) -> int:
        """Stated samples of each channel; some encoders count the frame of `tag` too."""
        if self.tag is None or self.tag.frames <= self.frames + 1:
            return self.samples
        return self.tag.frames * self.runs[0].kind.frame_samples


def frames_alone(path: PathLike, layout: Layout) -> Ranges:
    """Opens the frames as a file, which seems longer if no frame states their number."""
    spans = [(run.begin, run.end) for run in layout.runs]
    if not layout.states_samples:
        return Ranges(path, spans, stretch=_MOST_STRETCH)
    size = sum(end - begin for begin, end in spans)
    return Ranges(path, spans, layout.tag.restated(layout.frames, size))


@once_per_file
def find(path: PathLike) -> Layout | None:
    """Finds the frames of a file; None without a whole frame that states its bit rate.

    Raises:
      OSError: if it cannot be read.
    """
    with open(path, 'rb') as file:
        size = file.seek(0, os.SEEK_END)
        begin = skip_tags(file)
        first = _search(file, begin, size, min(size, begin + _JUNK_BEFORE))
        if first is None:
            return None
        tag = _read_tag(file, first, size)
        if tag is not None:
            if _is_plain(file, first, tag, size):
                return Layout(tag)
            first = _search(file, first + len(tag.content), size)
        runs = []
        while first is not None and (run := _follow(file, first, size)):
            runs.append(run)
            first = _search(file, run.end, size)
    return Layout(tag, tuple(runs)) if runs else None


def _is_plain(file: BinaryIO, first: int, tag: LengthTag, size: int) -> bool:
    """True if libmpg123 finds all frames after the `tag` at `first`, and prints no warning.

    It skips few kinds of tags in front, and warns if more than a few bytes follow.
    """
    end = first + tag.bytes
    is_right = tag.frames_at is not None and 0 <= size - end <= tag.bytes // _FEW
    return is_right and first == skip_id3(file) and _search(file, end, size) is None


def _follow(file: BinaryIO, begin: int, end: int, most: int | None = None) -> Run | None:
    """Follows at most `most` frames from `begin` on, as far as they are whole before `end`."""
    file.seek(begin)
    kind = _kind(file.read(_HEADER_BYTES))
    if kind is None:
        return None
    sizes, is_mono = _frame_sizes()[kind._replace(is_mono=False)], kind.is_mono
    frames, position, step, goes_on = 0, begin, 0, True
    while goes_on and frames != most:
        file.seek(position)
        block = file.read(_HEADER_BYTES if most else _BLOCK)
        place, last = 0, len(block) - _HEADER_BYTES
        goes_on = last >= 0
        while place <= last:
            header = block[place] << 16 | block[place + 1] << 8 | block[place + 2]
            if header not in sizes or (block[place + 3] >= _MONO) != is_mono:
                goes_on = False
                break
            step = sizes[header]
            place += step
            frames += 1
        position += place
    if position > end:
        position, frames = position - step, frames - 1
    return Run(kind, begin, position, frames) if frames else None


def _search(file: BinaryIO, begin: int, end: int, last: int | None = None) -> int | None:
    """Finds the next place, before `last` or else `end`, at which frames begin."""
    last = end if last is None else last
    begin = skip_tags(file, begin)
    if _follow(file, begin, end, 1):
        return begin
    while begin < last:
        file.seek(begin)
        block = file.read(min(_BLOCK, last - begin) + 1)
        for match in _SYNC.finditer(block):
            place = begin + match.start()
            run = _follow(file, place, end, _SURE)
            if run and (run.frames == _SURE or (run.frames > 1 and _ends_at(file, run.end, end))):
                return place
        begin += _BLOCK
    return None


def _ends_at(file: BinaryIO, position: int, end: int) -> bool:
    """True if the file ends at a position, or a tag begins there."""
    file.seek(position)
    return position == end or file.read(LONGEST_MARK).startswith(TAG_MARKS)


def _read_tag(file: BinaryIO, begin: int, end: int) -> LengthTag | None:
    """Reads the length that the frame at `begin` states; None if it holds sound."""
    frame = _follow(file, begin, end, 1)
    file.seek(begin)
    content = file.read(frame.end - begin)
    mark = _LENGTH_MARKS.search(content, 0, _MARK_WITHIN)
    if mark is None or frame.kind.layer != 3 or len(content) < mark.end() + 14:
        return None
    place = mark.end()
    if mark[0] == b'VBRI':
        size, frames = struct.unpack_from('>II', content, place + 6)
        return LengthTag(content, frames, size)
    (flags,) = struct.unpack_from('>I', content, place)
    frames_at = place + 4
    bytes_at = frames_at + 4 * (flags & _HAS_FRAMES)
    (frames,) = struct.unpack_from('>I', content, frames_at)
    (size,) = struct.unpack_from('>I', content, bytes_at)
    size = size if flags & _HAS_BYTES else 0
    if not flags & _HAS_FRAMES:
        return LengthTag(content, 0, size)
    fields = sum(length for flag, length in _FIELD_BYTES.items() if flags & flag)
    padding_at = frames_at + fields + _ENCODER_TO_PADDING
    padding_at = padding_at if padding_at + 1 < len(content) else None
    return LengthTag(content, frames, size, frames_at, bytes_at, padding_at)


@functools.cache
def _frame_sizes() -> dict[Kind, dict[int, int]]:
    """Maps kinds, as if not mono, to the bytes of a frame by the first three of its header."""
    known = {}
    for version, layer, rate in itertools.product(_RATE_DIVISORS, (1, 2, 3), range(3)):
        sample_rate = _SAMPLE_RATES[rate] // _RATE_DIVISORS[version]
        kind = Kind(1 if version == 3 else 2, layer, sample_rate, False)
        sizes = known[kind] = {}
        for index, bit_rate in enumerate(_BIT_RATES[kind[:2]], 1):
            for checked, padded, private in itertools.product((0, 1), repeat=3):
                slot = 4 if layer == 1 else 1  # bytes
                slots = kind.frame_samples * bit_rate * 125 // (sample_rate * slot) + padded
                fixed = 0xFFE000 | version << 11 | (4 - layer) << 9 | rate << 2
                varying = checked << 8 | index << 4 | padded << 1 | private
                sizes[fixed | varying] = slots * slot
    return known


def _kind(header: bytes) -> Kind | None:
    start = int.from_bytes(header[:3], 'big')
    kind = next((kind for kind, sizes in _frame_sizes().items() if start in sizes), None)
    return kind and kind._replace(is_mono=header[3:] >= bytes([_MONO]))

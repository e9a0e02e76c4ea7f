"""MPEG audio, layers I to III (ISO 11172-3, 13818-3 and MPEG 2.5): where all of its frames lie.

A decoder stops where the first frame states, or lets guess, that the file ends, or at bytes that
are no frame. Here the headers of all frames are read, and libsndfile is shown these frames alone,
with their true number.
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

MARKS = (b'ID3', b'\xff')  # the beginnings of most files
_SYNC = re.compile(rb'\xff[\xe2-\xff]')
_HEADER_BYTES = 4
_BLOCK = 1 << 20
# Bytes before the first frame in which it is looked for: as far as other decoders look.
_JUNK_BEFORE = 1 << 16
# Headers, each where the one before says, that other bytes do not form by chance.
_SURE = 4
_FEW = 100  # one part in so many may follow the frames

# A first frame without sound may state the length, where its side information would be or end.
_LENGTH_MARKS = re.compile(b'Xing|Info|VBRI')
_MARK_WITHIN = 42
_HAS_FRAMES, _HAS_BYTES = 1, 2
_FIELD_BYTES = {1: 4, 2: 4, 4: 100, 8: 4}  # of a Xing tag, by the flag that says it is there
_ENCODER_TO_PADDING = 22

# The highest bit rate over the lowest, and so how wrong the guess from one frame can be.
_MOST_STRETCH = 40


class Kind(NamedTuple):
    """The fields that all headers of a stream share; `version` is 1, or 2 for 2.5 too."""

    version: int
    layer: int
    sample_rate: int
    is_mono: bool

    @property
    def frame_samples(self) -> int:
        """Samples of a frame, of each channel."""
        if self.layer == 1:
            return 384
        return 576 if (self.version, self.layer) == (2, 3) else 1152


class Run(NamedTuple):
    """Frames of one kind without a gap, from byte `begin` to byte `end`."""

    kind: Kind
    begin: int
    end: int
    frames: int


class LengthTag(NamedTuple):
    """A first frame that states the number of those that follow it.

    Attributes:
      content: the frame.
      frames: that follow, as stated; 0 if it does not say.
      bytes: of these and itself, as stated; 0 if it does not say.
      frames_at: place in `content` of the number of frames; None if libsndfile does not read it.
      bytes_at: place of the number of bytes.
      padding_at: place of the encoder's padding at the end, 12 bits; None without.
    """

    content: bytes
    frames: int
    bytes: int
    frames_at: int | None = None
    bytes_at: int | None = None
    padding_at: int | None = None

    def restated(self, frames: int, size: int) -> bytes:
        """The frame as it would be with this number of frames, which have `size` bytes."""
        content = bytearray(self.content)
        struct.pack_into('>I', content, self.frames_at, frames)
        if self.bytes:
            struct.pack_into('>I', content, self.bytes_at, min(size + len(content), 0xFFFF_FFFF))
        # Padding ends the stream that it was added to, and more follows.
        if self.padding_at is not None and frames > self.frames:
            content[self.padding_at] &= 0xF0
            content[self.padding_at + 1] = 0
        return bytes(content)


class Layout(NamedTuple):
    """The frames of a file.

    Attributes:
      tag: the first, if it states the length.
      runs: the others; none where `tag` is right, so that a decoder finds them all by itself.
    """

    tag: LengthTag | None
    runs: tuple[Run, ...] = ()

    @property
    def frames(self) -> int:
        """Frames in all runs."""
        return sum(run.frames for run in self.runs)

    @property
    def samples(self) -> int:
        """Samples that the runs hold, of each channel."""
        return sum(run.frames * run.kind.frame_samples for run in self.runs)

    @property
    def states_samples(self) -> bool:
        """True if libsndfile learns the number of frames from `tag`."""
        return self.tag is not None and self.tag.frames_at is not None

    @property
    def promised(self) -> int:
        """Samples that the file says it holds; some encoders count the frame that says it too."""
        if self.tag is None or self.tag.frames <= self.frames + 1:
            return self.samples
        return self.tag.frames * self.runs[0].kind.frame_samples


def frames_alone(path: PathLike, layout: Layout) -> Ranges:
    """A file of the frames; where none states their number, no guess from the first ends within."""
    spans = [(run.begin, run.end) for run in layout.runs]
    if not layout.states_samples:
        return Ranges(path, spans, stretch=_MOST_STRETCH)
    size = sum(end - begin for begin, end in spans)
    return Ranges(path, spans, layout.tag.restated(layout.frames, size))


@once_per_file
def find(path: PathLike) -> Layout | None:
    """The frames of a file; None if it holds none that is whole and states its bit rate.

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
    """True if a decoder finds all frames behind the `tag` at `first` by itself, and is silent.

    libmpg123 passes over few kinds of tags before it, and warns where more than a few bytes follow.
    """
    end = first + tag.bytes
    is_right = tag.frames_at is not None and 0 <= size - end <= tag.bytes // _FEW
    return is_right and first == skip_id3(file) and _search(file, end, size) is None


def _follow(file: BinaryIO, begin: int, end: int, most: int | None = None) -> Run | None:
    """The frames, at most `most`, from `begin` on to where none begins or one is cut by `end`."""
    file.seek(begin)
    kind = _kind(file.read(_HEADER_BYTES))
    if kind is None:
        return None
    sizes, is_mono = _frame_sizes(kind), kind.is_mono
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
    """The next place, before `last` or else `end`, at which frames begin."""
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
    """The statement about all frames in the one at `begin`; None if that one holds sound."""
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
def _headers() -> dict[int, tuple[Kind, int]]:
    """Kind (as of more channels than one) and size in bytes by a header's first three bytes."""
    known = {}
    for version, layer, rate in itertools.product(_RATE_DIVISORS, (1, 2, 3), range(3)):
        sample_rate = _SAMPLE_RATES[rate] // _RATE_DIVISORS[version]
        kind = Kind(1 if version == 3 else 2, layer, sample_rate, False)
        for index, bit_rate in enumerate(_BIT_RATES[kind[:2]], 1):
            for checked, padded, private in itertools.product((0, 1), repeat=3):
                slot = 4 if layer == 1 else 1  # bytes
                slots = kind.frame_samples * bit_rate * 125 // (sample_rate * slot) + padded
                fixed = 0xFFE000 | version << 11 | (4 - layer) << 9 | rate << 2
                varying = checked << 8 | index << 4 | padded << 1 | private
                known[fixed | varying] = kind, slots * slot
    return known


def _kind(header: bytes) -> Kind | None:
    if len(header) < _HEADER_BYTES:
        return None
    kind, _ = _headers().get(int.from_bytes(header[:3], 'big'), (None, 0))
    return kind and kind._replace(is_mono=header[3] >= _MONO)


@functools.cache
def _frame_sizes(kind: Kind) -> dict[int, int]:
    """Bytes of a kind's frames by the first three bytes of their headers."""
    same = kind._replace(is_mono=False)
    return {header: size for header, (other, size) in _headers().items() if other == same}

"""Parts of a file: shows libsndfile the audio between tags and zeros as a file of its own."""

import bisect
import functools
import io
import itertools
import os
import struct
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, NamedTuple, TypeVar

from m2l_jax.interface.errors import InputError

PathLike = str | os.PathLike[str]
Found = TypeVar('Found')

TAG_MARKS = (b'ID3', b'TAG', b'APETAGEX', b'LYRICSBEGIN')
LONGEST_MARK = max(map(len, TAG_MARKS))
MOST_ZEROS = 1 << 16  # after audio: padding to the end of a disk's block
FEW = 128  # bytes after audio without a warning: padding, or a header counted as audio
_ID3V2_BYTES, _ID3V2_FOOTER = 10, 0x10
_APE, _APE_IS_HEADER = struct.Struct('<8sIIII8x'), 1 << 29
_BLOCK = 1 << 16
_LONGEST_ZEROS = 1 << 24  # before audio
_TAIL_BYTES = 128  # at the end, where decoders of MP3 look for a tag
_WAVE64 = b'riff' + bytes.fromhex('2e91cf11a5d628db04c10000')
_FILE_MARKS = (b'RIFF', b'RIFX', b'RF64', b'BW64', b'FORM', b'caff', b'.snd', b'fLaC', _WAVE64)


class Ranges(io.FileIO):
    """A read-only file that joins ranges of another.

    Args:
      path: the file.
      ranges: first byte and end of each.
      head: bytes before them.
      stretch: factor by which the file seems longer; all that can be read of this is zeros at the
        end.
    """

    def __init__(
        self, path: PathLike, ranges: Sequence[tuple[int, int]], head: bytes = b'', stretch: int = 1
    ):
        super().__init__(path)
        self._head = head
        self._ranges = ranges
        # Place in this file at which each begins, and at which the last ends.
        sizes = (end - begin for begin, end in ranges)
        self._places = list(itertools.accumulate(sizes, initial=len(head)))
        self._length = self._places[-1] * stretch
        self._position = 0

    def tell(self) -> int:
        """Place in this file."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves in this file."""
        self._position = offset + (0, self._position, self._length)[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Reads from one range, fewer bytes at its end."""
        view, place = memoryview(buffer).cast('B'), self._position
        if place < len(self._head):
            count = min(len(view), len(self._head) - place)
            view[:count] = self._head[place : place + count]
        elif place < self._places[-1]:
            index = bisect.bisect(self._places, place) - 1
            super().seek(self._ranges[index][0] + place - self._places[index])
            count = super().readinto(view[: self._places[index + 1] - place])
        elif place >= self._length - _TAIL_BYTES:
            count = min(len(view), max(0, self._length - place))
            view[:count] = bytes(count)
        else:
            count = 0
        self._position += count
        return count


class Contents(NamedTuple):
    """Audio of a file.

    Attributes:
      shown: the file to give to libsndfile; None if it can read the original.
      size: bytes of audio that are read.
      left_out: bytes after them that may be audio too.
      unstated: bytes of `size` beyond what the header states, if it states a size.
    """

    shown: BinaryIO | None
    size: int
    left_out: int = 0
    unstated: int = 0

    def warning(self, seconds: float) -> str:
        """Describes what is unsure about the end of a file of which `seconds` are read, or ''."""
        if self.left_out:
            return (
                f'{self.left_out} bytes follow the audio that the header counts and are left out, '
                f'{seconds * self.left_out / max(1, self.size):.1f} s if they are audio'
            )
        if self.unstated:
            return (
                f'the header states {self.size - self.unstated} bytes of audio and '
                f'{self.unstated} follow, which are read as audio too, '
                f'{seconds * self.unstated / self.size:.1f} s'
            )
        return ''


class Part(NamedTuple):
    """An open file without the tags before its audio; places count from `base`."""

    path: PathLike
    file: BinaryIO
    base: int
    size: int

    def read(self, place: int, length: int) -> bytes:
        """Reads bytes, padded with zeros after the end of the file."""
        self.file.seek(self.base + place)
        return self.file.read(length).ljust(length, b'\0')

    def unpack(self, form: struct.Struct, place: int) -> tuple:
        """Reads the numbers at a place."""
        return form.unpack(self.read(place, form.size))

    def show(self, head: bytes, begin: int, end: int) -> BinaryIO:
        """Opens `head` and the bytes from `begin` to `end` as a file."""
        return Ranges(self.path, [(self.base + begin, self.base + end)], head)

    def ends_at(self, place: int, few: int) -> bool:
        """True if only tags, zeros or `few` bytes follow a place.

        Raises:
          InputError: if another file begins there.
        """
        rest = self.size - place
        if rest <= few:
            return True
        after = skip_tags(self.file, self.base + place) - self.base
        if self.read(after, 16).startswith(_FILE_MARKS):
            raise joined(self.path)
        is_end = is_trailer(self.file, self.base + place, self.base + self.size)
        return is_end and (few > 0 or any(self.read(place, 1)))


def once_per_file(look: Callable[..., Found]) -> Callable[..., Found]:
    """Caches a function of a file's content: training reads parts of a file again and again."""

    @functools.lru_cache(maxsize=1 << 14)
    def look_once(path, size, changed, *arguments):
        return look(path, *arguments)

    @functools.wraps(look)
    def look_again(path, *arguments):
        status = os.stat(path)
        return look_once(os.fspath(path), status.st_size, status.st_mtime_ns, *arguments)

    return look_again


def skip_tags(file: BinaryIO, position: int = 0) -> int:
    """Finds the end of the tags at a position, and of zeros between and after them."""
    while (end := _skip_zeros(file, _skip_ape(file, skip_id3(file, position)))) != position:
        position = end
    return position


def skip_id3(file: BinaryIO, position: int = 0) -> int:
    """Finds the end of the ID3v2 tags at a position."""
    while True:
        file.seek(position)
        tag = file.read(_ID3V2_BYTES)
        sizes = tag[6:]
        if tag[:3] != b'ID3' or len(sizes) < 4 or max(sizes) > 127:
            return position
        size = sum(byte << shift for byte, shift in zip(sizes, (21, 14, 7, 0), strict=True))
        position += size + _ID3V2_BYTES * (2 if tag[5] & _ID3V2_FOOTER else 1)


def is_trailer(file: BinaryIO, begin: int, end: int) -> bool:
    """True if there are only zeros, or nothing, between two positions, or a tag at the first."""
    file.seek(begin)
    start = file.read(LONGEST_MARK)
    if begin >= end or start.startswith(TAG_MARKS):
        return True
    if any(start) or end - begin > MOST_ZEROS:
        return False
    return not any(file.read(end - begin - len(start)))


def _skip_ape(file: BinaryIO, position: int) -> int:
    file.seek(position)
    mark, _, size, _, flags = _APE.unpack(file.read(_APE.size).ljust(_APE.size, b'\0'))
    is_header = mark == b'APETAGEX' and flags & _APE_IS_HEADER
    return position + _APE.size + size if is_header else position


def _skip_zeros(file: BinaryIO, position: int) -> int:
    """Finds the first byte that is not 0 from a position on; the position itself without one."""
    file.seek(position)
    place = position
    while place - position < _LONGEST_ZEROS and (block := file.read(_BLOCK)):
        if rest := block.lstrip(b'\0'):
            return place + len(block) - len(rest)
        place += len(block)
    return position


def truncated(path: PathLike, held: int, promised: int, unit: str = 'samples') -> InputError:
    """Makes the error for a file that ends early."""
    return InputError(
        f'{path} ends after {held} {unit} of {promised}: '
        'the file is truncated; replace or remove it'
    )


def joined(path: PathLike, is_converted: bool = False) -> InputError:
    """Makes the error for several streams in one file; ffmpeg reads them all if `is_converted`."""
    convert = f', or convert it (ffmpeg -i {path} FILE.flac)' if is_converted else ''
    return InputError(
        f'{path} holds several streams in a row, which cannot be read as one: '
        f'split it into one file for each{convert}'
    )

"""Decoding of untrusted files: checks what a header claims, and never allocates it."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soundfile

from m2l_jax.audio import containers, mpeg, ogg
from m2l_jax.audio.parts import PathLike, Ranges, joined, skip_tags, truncated
from m2l_jax.audio.suffixes import UNREAD_SUFFIXES
from m2l_jax.interface.errors import InputError

# Hz. Beyond the slowest samples of speech and instruments, and the fastest recorders for bats.
SAMPLE_RATES = range(1_000, 1_000_001)
# The widest in use: ambisonics of the tenth order, 121.
_MOST_CHANNELS = 128
# Silence takes the least bytes: a FLAC frame of 12 for 65,535 samples.
_MOST_SAMPLES_A_BYTE = 8_192
# Samples; libsndfile gives 2^63 - 1 for a length that the header does not state.
_LONGEST = 1 << 40

_BLOCK_VALUES = 1 << 19  # samples, of all channels, that are decoded at a time
# libsndfile misplaces a seek into the last page of an Ogg stream.
_OGG_LAST_PAGES = 1 << 16
# An MP3 frame borrows bits from frames before it, which a seek does not decode.
_MP3_RUN_IN = 1 << 14

# libsndfile's code for a file named .mp3 that is something else; its text says "does not exist".
_NOT_MPEG = 7

# Most samples that decoders of MP3 and Ogg drop at the ends of files.
_LOSSY_SLACK = 1 << 13

# Formats that are not read, also under other names: libmpg123 would look for frames in them.
_MP4_BRAND = b'ftyp'
_UNREAD_MARKS = (b'\x30\x26\xb2\x75', b'\x1a\x45\xdf\xa3')
_CONVERSION = 'convert it (ffmpeg -i {} FILE.flac)'

# libsndfile keeps the stored order of channels: left, right, centre, bass, back, side in WAV and
# most formats, another in Vorbis and Opus (Vorbis I, section 4.3.9; RFC 7845, section 5.1.1.2).
# By the number of channels: the index in Vorbis of each channel of WAV.
_AS_STORED = slice(None)
_WAV_FROM_VORBIS = {
    3: [0, 2, 1],
    5: [0, 2, 1, 3, 4],
    6: [0, 2, 1, 5, 3, 4],
    7: [0, 2, 1, 6, 5, 3, 4],
    8: [0, 2, 1, 7, 5, 6, 3, 4],
}
# A byte of an Opus header says what the channels are: loudspeakers, ambisonics, or unknown.
_OPUS_HEADER, _OPUS_FAMILY, _LOUDSPEAKERS = b'OpusHead', 18, 1
_FIRST_PAGES_BYTES = 1 << 16


class OpenAudio(soundfile.SoundFile):
    """An audio file that is read forwards, as from a pipe.

    A seekable soundfile seeks after each read. At the end of a file whose header does not state
    the length, that fails, and what was read is lost.

    Attributes:
      samples: length of each channel, as the header states or as counted in the frames.
      has_length: True if it is known.
      warning: doubts about the end of the audio, without the file's name; '' without any.
    """

    def __init__(self, file: str | bytes | BinaryIO, samples: int | None = None):
        super().__init__(file)
        self.samples = self.frames if samples is None else samples
        self.has_length = self.samples <= _LONGEST
        self.warning = ''

    def seekable(self) -> bool:
        """Returns False, so that soundfile does not seek after a read."""
        return False

    @property
    def can_seek(self) -> bool:
        """True if `seek` is exact: the format can, and the length is known."""
        return super().seekable() and self.has_length


@contextlib.contextmanager
def opened(path: PathLike) -> Iterator[OpenAudio]:
    """Opens a file and checks its header.

    Raises:
      InputError: if the file is missing, not audio, shorter than its header states, or has a sample
        rate, channels or a length that no audio of its size has, or several streams in a row that
        cannot be read as one; while it is open, also for errors of libsndfile.
    """
    if not os.path.isfile(path):
        raise InputError(f'{path} does not exist or is not a file: check the path')
    if not os.access(path, os.R_OK):
        raise InputError(f'{path} cannot be read: change its permissions')
    with contextlib.ExitStack() as stack:
        try:
            file = _open(path, stack)
            _check_header(file, path)
        except (soundfile.LibsndfileError, TypeError, OSError) as error:
            raise InputError(
                f'{path} cannot be read as audio ({_reason(error)}): {_remedy(path)}'
            ) from None
        try:
            yield file
        except (soundfile.LibsndfileError, OSError) as error:
            reason = _reason(error)
            raise InputError(f'{path} is damaged ({reason}): replace or remove it') from None


def decode(
    file: OpenAudio,
    path: PathLike,
    start: int = 0,
    stop: int | None = None,
    expansion: float = 1,
) -> Iterator[np.ndarray]:
    """Decodes a file, or by seeking a part of it, block by block.

    Args:
      file: from `opened`.
      path: its name, for messages.
      start: first sample, at the file's own rate.
      stop: sample after the last; None for all that the header states.
      expansion: target rate over the file's rate: blocks are shorter if resampling lengthens them.

    Yields:
      `[samples, channels]`, float32, channels in WAV's order; fewer samples in all if the file ends
      before `stop`.

    Raises:
      InputError: if `stop` is None and the file holds less than its header states.
    """
    longest = max(1, int(_BLOCK_VALUES / file.channels / max(1, expansion)))
    order = _read_order(file, path)
    seek = _seek_point(file, start)
    position = file.seek(seek) if seek else 0
    while stop is None or position < stop:
        length = longest if stop is None else min(longest, stop - position)
        if file.format == 'FLAC' and file.has_length:  # zeros may follow the frames
            length = min(length, file.samples - position)
        block = file.read(length, dtype='float32', always_2d=True)
        if not len(block):
            break
        yield block[max(0, start - position) :, order]
        position += len(block)
    slack = _LOSSY_SLACK if file.format in ('MP3', 'OGG') else 0
    if stop is None and file.has_length and position + slack < file.samples:
        raise truncated(path, position, file.samples)


def channel_order(file: soundfile.SoundFile) -> slice | list[int]:
    """Indices that bring the channels of a file into WAV's order."""
    if file.subtype not in ('VORBIS', 'OPUS'):
        return _AS_STORED
    return _WAV_FROM_VORBIS.get(file.channels, _AS_STORED)


def _read_order(file: OpenAudio, path: PathLike) -> slice | list[int]:
    if file.subtype == 'OPUS':
        with open(path, 'rb') as bare:
            bare.seek(skip_tags(bare))
            header = bare.read(_FIRST_PAGES_BYTES).partition(_OPUS_HEADER)[2]
        place = _OPUS_FAMILY - len(_OPUS_HEADER)
        if header[place : place + 1] != bytes([_LOUDSPEAKERS]):
            return _AS_STORED
    return channel_order(file)


def _open(path: PathLike, stack: contextlib.ExitStack) -> OpenAudio:
    # soundfile cannot encode names that are not Unicode.
    name = os.fspath(path) if sys.platform == 'win32' else os.fsencode(path)
    contents = containers.look_into(path)
    if contents is None:
        return _open_streams(path, name, stack)
    shown = stack.enter_context(contents.shown) if contents.shown else name
    file = stack.enter_context(OpenAudio(shown))
    if _is_mpeg(file):
        return _open_frames(path, stack) or file
    file.warning = contents.warning(file.frames / file.samplerate)
    return file


def _open_streams(path: PathLike, name: str | bytes, stack: contextlib.ExitStack) -> OpenAudio:
    """Opens Ogg, MPEG audio, and formats that `containers.look_into` does not know."""
    with open(path, 'rb') as bare:
        head = bare.read(8)
        begin = skip_tags(bare)
        bare.seek(begin)
        mark = bare.read(4)
    if head[4:] == _MP4_BRAND or head[:4] in _UNREAD_MARKS:
        remedy = _CONVERSION.format(path)
        raise InputError(f'{path} cannot be read as audio (MP4, WMA or Matroska): {remedy}')
    if mark == ogg.MARK:
        ogg.check(path)
        whole = [(begin, os.path.getsize(path))] if begin else []
        if parts := ogg.flac_ranges(path) or whole:
            return stack.enter_context(OpenAudio(stack.enter_context(Ranges(path, parts))))
    # libmpg123 prints a warning for a file that is longer than its first frame states.
    if mark.startswith(mpeg.MARKS) and (frames := _open_frames(path, stack)):
        return frames
    try:
        file = stack.enter_context(OpenAudio(name))
    except soundfile.LibsndfileError:
        if frames := _open_frames(path, stack):
            return frames
        raise
    if _is_mpeg(file):
        if mpeg.find(path) is None:
            raise InputError(
                f'{path} holds no whole frame of MPEG audio that states its bit rate: '
                'encode it again, or remove it'
            )
        return _open_frames(path, stack) or file
    values = file.frames * file.channels
    contents = containers.compare_size(path, file.format, file.subtype, values)
    if contents is not None:
        file.warning = contents.warning(file.frames / file.samplerate)
    return file


def _open_frames(path: PathLike, stack: contextlib.ExitStack) -> OpenAudio | None:
    """Opens the frames of MPEG audio; None without any, or if libsndfile finds them all."""
    layout = mpeg.find(path)
    if layout is None or not layout.runs:
        return None
    if len({run.kind for run in layout.runs}) > 1:
        raise joined(path, is_converted=True)
    if layout.promised > layout.samples:
        raise truncated(path, layout.samples, layout.promised)
    frames = stack.enter_context(mpeg.frames_alone(path, layout))
    return stack.enter_context(OpenAudio(frames, None if layout.states_samples else layout.samples))


def _is_mpeg(file: OpenAudio) -> bool:
    return file.subtype.startswith('MPEG_LAYER')  # in a file of its own or a WAV


def _check_header(file: OpenAudio, path: PathLike) -> None:
    size = os.path.getsize(path)
    problem = None
    if file.samplerate not in SAMPLE_RATES:
        problem = f'a sample rate of {file.samplerate} Hz'
    elif file.channels > _MOST_CHANNELS:
        problem = f'{file.channels} channels, of at most {_MOST_CHANNELS}'
    elif file.has_length and file.samples > size * _MOST_SAMPLES_A_BYTE:
        problem = f'{file.samples / file.samplerate / 3600:.1f} hours in {size} bytes'
    if problem:
        raise InputError(
            f'{path} cannot be audio, its header claims {problem}: replace or remove it'
        )
    if file.format == 'SVX' and file.channels > 1:  # libsndfile takes turns between them
        raise InputError(
            f'{path} holds its channels one after the other, which is not read: '
            'convert it (sox FILE.8svx FILE.wav)'
        )


def _seek_point(file: OpenAudio, start: int) -> int:
    """Finds the last position to seek to after which decoding is exact at `start`."""
    if not file.can_seek:
        return 0
    if file.format == 'OGG':
        start = min(start, file.samples - _OGG_LAST_PAGES)
    elif _is_mpeg(file):
        start -= _MP3_RUN_IN
    return max(0, min(start, file.samples))


def _remedy(path: PathLike) -> str:
    if os.path.splitext(path)[1].lower() in UNREAD_SUFFIXES:
        return _CONVERSION.format(path)
    return 'replace or remove it'


def _reason(error: Exception) -> str:
    if getattr(error, 'code', None) == _NOT_MPEG:
        return 'it is in no format that libsndfile reads'
    return str(getattr(error, 'error_string', error)).rstrip('.')

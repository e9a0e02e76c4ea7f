"""Audio files: any format that libsndfile reads, any sample rate, any number of channels."""

import dataclasses
import io
import itertools
import math
import os
import pathlib
from collections.abc import Iterator

import numpy as np
import soundfile
import soxr

from m2l_jax.audio.blocks import cut, join, regroup, resample_blocks, resampled_length
from m2l_jax.audio.decoding import OpenAudio, channel_order, decode, opened
from m2l_jax.audio.levels import Levels, log_once
from m2l_jax.audio.parts import PathLike, truncated
from m2l_jax.audio.suffixes import AUDIO_SUFFIXES, UNREAD_SUFFIXES, LeftOut, left_out
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.listing import (
    find_files,
    list_files,
    names_others,
    readable_name,
    split_inputs,
)
from m2l_jax.interface.paths import replaced_file

# Source samples read on either side of a part: more than half of soxr's high-quality filter, whose
# length grows with the ratio of the rates.
_LEAST_MARGIN = 8192
_MARGIN_A_RATIO = 2048
# RAW has no header. libsndfile writes the header of SD2 into the working folder, and then takes an
# MP3 there for another SD2.
_NO_FILES = {'RAW', 'SD2'}
# In most formats, sizes wrap at 4 GiB, header included.
_HEADER_BYTES = 1 << 16
_MOST_BYTES = (1 << 32) - _HEADER_BYTES
_UNBOUNDED = ('RF64', 'W64', 'CAF', 'FLAC', 'OGG', 'MP3')
_WAV_BYTES = 3  # of a sample
# libsndfile's Vorbis encoder overflows its stack on one very long write.
_WRITE_BLOCK = 1 << 16


def resample(waveform: np.ndarray, source_rate: int, sample_rate: int) -> np.ndarray:
    """Resamples `[channels, samples]` to `resampled_length` samples; rates are in Hz."""
    length = resampled_length(waveform.shape[1], source_rate, sample_rate)
    return np.ascontiguousarray(soxr.resample(waveform.T, source_rate, sample_rate)[:length].T)


class FormatError(InputError):
    """An error for audio that a format cannot hold, at any path."""


@dataclasses.dataclass(frozen=True)
class AudioInfo:
    """Stored rate, channels and samples of a file; `warning` as of `OpenAudio`."""

    path: str
    sample_rate: int
    channels: int
    samples: int
    warning: str = ''

    def samples_at(self, sample_rate: int) -> int:
        """Samples of the whole file at `sample_rate`."""
        return resampled_length(self.samples, self.sample_rate, sample_rate)


def search(paths: str) -> tuple[list[str], LeftOut]:
    """Lists audio files, each once; folders are searched recursively.

    Args:
      paths: a file, folder, pattern or list, see `find_files`; several with commas between.

    Returns:
      The files, and those in the folders whose formats are not read.

    Raises:
      InputError: if one of them does not exist, or a pattern matches nothing.
    """
    listed = [_list(part) for part in split_inputs(paths)]
    found: dict[str, str] = {}  # by what they are, whatever they are called
    for file in (file for files, _ in listed for file in files):
        found.setdefault(os.path.abspath(file), file)
    others = {os.path.abspath(file): file for _, files in listed for file in files}
    unread = (file for path, file in others.items() if path not in found)
    return list(found.values()), left_out(map(readable_name, unread))


def _list(part: str) -> tuple[list[str], list[str]]:
    if not names_others(part):
        return list_files(part, AUDIO_SUFFIXES, UNREAD_SUFFIXES)
    found = find_files([part], AUDIO_SUFFIXES, 'audio file', UNREAD_SUFFIXES)
    return found.files, found.left_out


def read_info(path: PathLike) -> AudioInfo:
    """Reads rate, channels and length of a file; decodes it if its header states no length.

    Raises:
      InputError: if the file is missing, not audio, or shorter than its header states.
    """
    with opened(path) as file:
        info = _info(file, path)
        if file.has_length:
            return info
        return dataclasses.replace(info, samples=sum(map(len, decode(file, path))))


def read(
    path: PathLike,
    sample_rate: int,
    start: int = 0,
    samples: int | None = None,
    levels: Levels | None = None,
) -> np.ndarray:
    """Reads a file, or by seeking a part of it, at a given sample rate.

    A part equals the same slice of the whole file's resampled signal. Memory is in proportion to
    the file's content, not to what its header claims.

    Args:
      path: the file.
      sample_rate: of the result, in Hz.
      start: first sample, at `sample_rate`.
      samples: number of samples, at `sample_rate`; None reads to the end.
      levels: gets the decoded audio; if None, odd levels are logged.

    Returns:
      `[channels, samples]`, float32.

    Raises:
      InputError: if the file is missing, not audio, damaged, or ends before `start + samples` or
        the length in its header.
    """
    seen = Levels() if levels is None else levels
    with opened(path) as file:
        info = _info(file, path)
        waveform = join(_read_part(file, path, sample_rate, start, samples, seen), file.channels)
    if samples is not None and waveform.shape[1] < samples:
        raise truncated(path, start + waveform.shape[1], start + samples)
    if levels is None:
        _log_oddities(info, seen, is_whole=samples is None)
    return waveform


def read_blocks(
    path: PathLike,
    sample_rate: int,
    block_samples: int,
    overlap_samples: int = 0,
    levels: Levels | None = None,
) -> Iterator[np.ndarray]:
    """Reads a file of any length block by block, in memory for one block.

    The blocks are slices of the whole file as `read` returns it, bit for bit. The file is decoded
    once and needs no length in its header.

    Args:
      path: the file.
      sample_rate: of the result, in Hz.
      block_samples: length of a block, at `sample_rate`.
      overlap_samples: samples at the end of a block that the next one repeats.
      levels: see `read`.

    Yields:
      `[channels, block_samples]`, float32; the last may be shorter, but is longer than the overlap.

    Raises:
      InputError: if the file is missing, not audio, damaged, empty or not finite, or, at its end,
        shorter than its header states.
    """
    if not 0 <= overlap_samples < block_samples:
        raise ValueError(f'blocks of {block_samples} samples cannot overlap by {overlap_samples}')
    empty, seen = True, Levels() if levels is None else levels
    with opened(path) as file:
        info = _info(file, path)
        blocks = _read_part(file, path, sample_rate, 0, None, seen)
        for block in regroup(blocks, file.channels, block_samples, overlap_samples):
            check_finite(block, path)
            empty = False
            yield block
    if empty:
        raise InputError(f'{path} holds no samples: replace or remove it')
    if levels is None:
        _log_oddities(info, seen, is_whole=True)


def check_finite(waveform: np.ndarray, path: PathLike) -> None:
    """Raises an InputError, which names the file, for NaN and infinite samples."""
    if not np.all(np.isfinite(waveform)):
        raise InputError(f'{path} holds NaN or infinite samples: replace or remove it')


def write(path: PathLike, waveform: np.ndarray, sample_rate: int) -> None:
    """Writes `[channels, samples]` or `[samples]` in [-1, 1]; see `write_blocks`."""
    waveform = np.atleast_2d(np.asarray(waveform))
    write_blocks(path, iter([waveform]), sample_rate, waveform.shape[1])


def write_blocks(
    path: PathLike, blocks: Iterator[np.ndarray], sample_rate: int, samples: int
) -> None:
    """Writes consecutive blocks in the format of the file's suffix.

    WAV and FLAC get 24 bits; a WAV of more than 4 GiB becomes an RF64. The file appears under its
    name only once it is complete.

    Args:
      path: the file.
      blocks: `[channels, samples]` in [-1, 1], at least one.
      sample_rate: in Hz.
      samples: of all blocks together.

    Raises:
      FormatError: for a suffix that libsndfile cannot write, or a rate, number of channels or
        length that the format cannot hold.
      InputError: if the file cannot be written.
    """
    path = pathlib.Path(path)
    kind = path.suffix[1:].upper()
    if kind not in soundfile.available_formats().keys() - _NO_FILES:
        raise FormatError(f'{path}: cannot write {path.suffix!r} files; use .wav, .flac or .ogg')
    subtype = 'PCM_24' if kind in ('WAV', 'FLAC') else None
    first = next(blocks)
    if kind == 'WAV' and samples * len(first) * _WAV_BYTES > _MOST_BYTES:
        kind = 'RF64'
    format_ = (sample_rate, len(first), subtype, None, kind)
    with replaced_file(path) as partial, _Target(partial, 'w+') as target:
        try:
            with soundfile.SoundFile(target, 'w', *format_) as file:
                order = np.argsort(np.arange(len(first))[channel_order(file)])
                for block in itertools.chain([first], blocks):
                    for begin in range(0, block.shape[1], _WRITE_BLOCK):
                        file.write(block[order, begin : begin + _WRITE_BLOCK].T)
                        target.check()
                        _check_length(path, kind, target.tell())
        except soundfile.LibsndfileError as error:
            target.check()
            reason = error.error_string.rstrip('.')
            raise FormatError(
                f'{path}: {kind} cannot hold {len(first)} channels at {sample_rate} Hz ({reason})'
            ) from None
        except AssertionError:  # of soundfile, after an incomplete write
            target.check()
            raise
        target.check()


def _check_length(path: pathlib.Path, kind: str, length: int) -> None:
    if kind not in _UNBOUNDED and length > _MOST_BYTES + _HEADER_BYTES:
        raise FormatError(f'{path}: {kind} cannot hold more than 4 GiB; use .wav or .flac')


class _Target(io.FileIO):
    """A file that keeps its first error: libsndfile does not report one in closing a file."""

    _error: OSError | None = None

    def write(self, content: bytes) -> int:
        """Writes all, or returns 0: Python would only print an exception within libsndfile."""
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self._error = self._error or error
            return 0
        return len(content)

    def check(self) -> None:
        """Raises the first OSError of a write."""
        if self._error is not None:
            raise self._error


def _info(file: OpenAudio, path: PathLike) -> AudioInfo:
    return AudioInfo(os.fspath(path), file.samplerate, file.channels, file.samples, file.warning)


def _log_oddities(info: AudioInfo, levels: Levels, is_whole: bool) -> None:
    """Warns once of a file that was read, whole or in part."""
    log_once(info.path, info.warning)
    log_once(info.path, levels.oddity() if is_whole else levels.too_loud())


def _read_part(
    file: OpenAudio,
    path: PathLike,
    sample_rate: int,
    start: int,
    samples: int | None,
    levels: Levels,
) -> Iterator[np.ndarray]:
    """Yields blocks, `[samples, channels]`; fewer samples in all if the file ends early."""
    stop = None if samples is None else start + samples
    if file.samplerate == sample_rate:
        return levels.measured(decode(file, path, start, stop))
    # Start where samples of both rates coincide, early enough for the filter.
    common = math.gcd(file.samplerate, sample_rate)
    source_period, target_period = file.samplerate // common, sample_rate // common
    ratio = file.samplerate / sample_rate
    margin = max(_LEAST_MARGIN, _MARGIN_A_RATIO * math.ceil(ratio))
    periods = max(0, start * file.samplerate // sample_rate - margin) // source_period
    source_stop = None
    if stop is not None:
        source_stop = math.ceil(stop * file.samplerate / sample_rate) + margin
    source = decode(file, path, periods * source_period, source_stop, expansion=1 / ratio)
    seen = levels.measured(source)
    resampled = resample_blocks(seen, file.samplerate, sample_rate, file.channels)
    return cut(resampled, start - periods * target_period, samples)

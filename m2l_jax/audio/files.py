"""Audio files: any format that libsndfile reads, any sample rate, any number of channels."""

import dataclasses
import math
import os
import pathlib

import numpy as np
import soundfile
import soxr

from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import list_files, replaced_file

PathLike = str | os.PathLike[str]

AUDIO_SUFFIXES = frozenset(
    f'.{name.lower()}' for name in (*soundfile.available_formats(), 'oga', 'opus', 'aif', 'mp2')
) - {'.raw'}  # a headerless file says neither its rate nor its format

# Source samples read on either side of a partial read, so that the resampling filter has run in:
# longer than half of soxr's high-quality filter at any rate up to 192 kHz.
_RESAMPLING_MARGIN = 8192
# Samples; libsndfile gives 2^63 - 1 for a length that the header leaves out.
_LONGEST = 1 << 40
# libsndfile misplaces a seek into the last page of an Ogg stream, whose end it trims.
_OGG_LAST_PAGES = 1 << 16
# libsndfile's Vorbis encoder overflows its stack on one very long write.
_WRITE_BLOCK = 1 << 16


@dataclasses.dataclass(frozen=True)
class AudioInfo:
    """What a file's header says: channels, and rate and samples as stored."""

    path: str
    sample_rate: int
    channels: int
    samples: int

    def samples_at(self, sample_rate: int) -> int:
        """Whole samples in the file after resampling to `sample_rate`."""
        return self.samples * sample_rate // self.sample_rate


def find(paths: str) -> list[str]:
    """The audio files that `paths` names, each once: files, and folders with all below them.

    Args:
      paths: a file or folder; several with commas between.

    Raises:
      InputError: if one of them does not exist.
    """
    found = (file for part in paths.split(',') for file in list_files(part.strip(), AUDIO_SUFFIXES))
    return list(dict.fromkeys(found))


def read_info(path: PathLike) -> AudioInfo:
    """Reads a file's header.

    Raises:
      InputError: if the file is missing, not audio, or of unknown length (a FLAC from a pipe).
    """
    with _open(path) as file:
        if file.frames > _LONGEST:
            raise InputError(f'{path} does not say how long it is: encode it again')
        return AudioInfo(os.fspath(path), file.samplerate, file.channels, file.frames)


def read(
    path: PathLike, sample_rate: int, start: int = 0, samples: int | None = None
) -> np.ndarray:
    """Reads a file, or by seeking a part of it, at a given sample rate.

    A part equals the same slice of the whole file's resampled signal: reading starts where source
    and target samples coincide, with a margin for the filter.

    Args:
      path: the file.
      sample_rate: the rate wanted, in Hz; the file is resampled to it if it has another.
      start: first sample wanted, counted at `sample_rate`.
      samples: how many samples, counted at `sample_rate`; None reads to the end.

    Returns:
      `[channels, samples]`, float32.

    Raises:
      InputError: if the file is missing, not audio, or ends before `start + samples`.
    """
    with _open(path) as file:
        if file.samplerate == sample_rate:
            waveform = _read_frames(file, path, start, samples)
        else:
            waveform = _read_resampled(file, path, sample_rate, start, samples)
    if samples is not None and waveform.shape[1] < samples:
        raise InputError(
            f'{path} ends after {start + waveform.shape[1]} samples of {start + samples}: '
            'the file is truncated; replace or remove it'
        )
    return waveform


def write(path: PathLike, waveform: np.ndarray, sample_rate: int) -> None:
    """Writes `[channels, samples]` (or `[samples]`) in [-1, 1] in the format of the file's suffix.

    WAV and FLAC get 24 bits. The file appears under its name only once it is complete.

    Raises:
      InputError: for a suffix that libsndfile cannot write, or a place that cannot be written to.
    """
    path = pathlib.Path(path)
    kind = path.suffix[1:].upper()
    if kind not in soundfile.available_formats():
        raise InputError(f'{path}: cannot write {path.suffix!r} files; use .wav, .flac or .ogg')
    subtype = 'PCM_24' if kind in ('WAV', 'FLAC') else None
    waveform = np.atleast_2d(np.asarray(waveform))
    try:
        with (
            replaced_file(path) as partial,
            soundfile.SoundFile(
                partial, 'w', sample_rate, waveform.shape[0], subtype, format=kind
            ) as file,
        ):
            for begin in range(0, waveform.shape[1], _WRITE_BLOCK):
                file.write(waveform[:, begin : begin + _WRITE_BLOCK].T)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.rstrip('.')
        raise InputError(f'{path} cannot be written ({reason})') from None


def _open(path: PathLike) -> soundfile.SoundFile:
    if not os.path.isfile(path):
        raise InputError(f'{path} does not exist or is not a file: check the path')
    try:
        return soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, TypeError) as error:
        reason = str(getattr(error, 'error_string', error)).rstrip('.')
        raise InputError(
            f'{path} cannot be read as audio ({reason}): replace or remove it'
        ) from None


def _read_frames(
    file: soundfile.SoundFile, path: PathLike, start: int, samples: int | None
) -> np.ndarray:
    """`[channels, samples]` at the file's own rate; fewer where the file ends early."""
    try:
        begin = file.seek(min(start, _last_exact_seek(file)))
        length = -1 if samples is None else start - begin + samples
        frames = file.read(length, dtype='float32', always_2d=True)[start - begin :]
    except soundfile.LibsndfileError as error:
        reason = error.error_string.rstrip('.')
        raise InputError(f'{path} is damaged ({reason}): replace or remove it') from None
    return np.ascontiguousarray(frames.T)


def _last_exact_seek(file: soundfile.SoundFile) -> int:
    """The last position to which seeking is exact; later ones are read up to."""
    return max(0, file.frames - _OGG_LAST_PAGES) if file.format == 'OGG' else file.frames


def _read_resampled(
    file: soundfile.SoundFile, path: PathLike, sample_rate: int, start: int, samples: int | None
) -> np.ndarray:
    common = math.gcd(file.samplerate, sample_rate)
    source_period, target_period = file.samplerate // common, sample_rate // common
    wanted = start * file.samplerate // sample_rate
    periods = max(0, wanted - _RESAMPLING_MARGIN) // source_period
    length = None
    if samples is not None:
        last = math.ceil((start + samples) * file.samplerate / sample_rate)
        length = last + _RESAMPLING_MARGIN - periods * source_period
    source = _read_frames(file, path, periods * source_period, length)
    resampled = soxr.resample(source.T, file.samplerate, sample_rate).T
    offset = start - periods * target_period
    end = None if samples is None else offset + samples
    return np.ascontiguousarray(resampled[:, offset:end])

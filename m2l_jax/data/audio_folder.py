"""Audio files as a source of training crops."""

import concurrent.futures
import dataclasses
import hashlib
import os
from collections.abc import Iterator

import numpy as np

from m2l_jax.audio import files
from m2l_jax.audio.levels import Levels, check_loudness, log_once
from m2l_jax.audio.suffixes import LeftOut
from m2l_jax.data.inputs import no_audio
from m2l_jax.interface.errors import InputError

_FILES_AHEAD = 4  # read whole at a time: they may be hours long


@dataclasses.dataclass(frozen=True)
class FilePlace:
    """A crop's place in a file; `start` counts samples at the model's rate."""

    file: files.AudioInfo
    start: int
    channel: int

    @property
    def item(self) -> str:
        """Path of the file."""
        return self.file.path


class AudioFolder:
    """Usable audio files, in a fixed order.

    Files are drawn in proportion to their length, so that every second is as likely, and their
    channels evenly.

    Attributes:
      files: headers of the usable files.
      skipped: messages about the others.
      samples: of all channels of the usable files.
    """

    def __init__(
        self,
        usable: list[files.AudioInfo],
        skipped: list[str],
        sample_rate: int,
        crop_samples: int,
        left_out: LeftOut,
    ):
        self.files = tuple(usable)
        self.skipped = tuple(skipped)
        self._left_out = left_out
        self._sample_rate = sample_rate
        self._crop_samples = crop_samples
        starts = [file.samples_at(sample_rate) - crop_samples + 1 for file in usable]
        self._ends = np.cumsum(starts)
        self.samples = sum(file.samples_at(sample_rate) * file.channels for file in usable)

    @property
    def seconds(self) -> float:
        """Duration of all usable files."""
        return sum(file.samples / file.sample_rate for file in self.files)

    def describe(self) -> str:
        """One line for the log."""
        line = f'{len(self.files)} audio files, {self.seconds / 60:.1f} minutes'
        line += f'; {len(self.skipped)} skipped' if self.skipped else ''
        return line + (f'; {self._left_out.describe()}' if self._left_out.files else '')

    def fingerprint(self) -> str:
        """Of the files' names and headers, in order."""
        digest = hashlib.sha256()
        for file in self.files:
            name = os.path.basename(file.path)
            header = (file.sample_rate, file.channels, file.samples)
            digest.update(repr((name, *header)).encode('utf-8', 'surrogateescape'))
        return digest.hexdigest()

    def draw(self, random: np.random.Generator) -> FilePlace:
        """A random crop's place."""
        position = int(random.integers(self._ends[-1]))
        number = int(np.searchsorted(self._ends, position, side='right'))
        before = int(self._ends[number - 1]) if number else 0
        file = self.files[number]
        return FilePlace(file, position - before, int(random.integers(file.channels)))

    def read(self, place: FilePlace) -> np.ndarray:
        """The crop, `[samples]`, float32.

        Raises:
          InputError: if the file is damaged, or holds numbers that are not finite, or too large
            to learn from.
        """
        channels = files.read(place.item, self._sample_rate, place.start, self._crop_samples)
        waveform = channels[place.channel]
        files.check_finite(waveform, place.item)
        check_loudness(waveform, place.item)
        return waveform

    def items(self) -> Iterator[tuple[str, np.ndarray | str]]:
        """Every file's path, and its waveform `[channels, samples]` or why it cannot be used.

        A file that is too loud cannot: of these waveforms 16 bits are kept, which clip it.
        """
        with concurrent.futures.ThreadPoolExecutor() as threads:
            for begin in range(0, len(self.files), _FILES_AHEAD):
                part = self.files[begin : begin + _FILES_AHEAD]
                for file, waveform in zip(part, threads.map(self._read_whole, part), strict=True):
                    yield file.path, waveform

    def _read_whole(self, file: files.AudioInfo) -> np.ndarray | str:
        levels = Levels()
        try:
            waveform = files.read(file.path, self._sample_rate, levels=levels)
        except InputError as error:
            return str(error)
        too_loud = levels.too_loud()
        return f'{file.path} is {too_loud}' if too_loud else waveform


def scan(path: str, sample_rate: int, crop_samples: int) -> AudioFolder:
    """Lists the audio files under `path` and reads their headers.

    Args:
      path: a file, or a folder that is searched recursively; several with commas between.
      sample_rate: at which crops are read, in Hz.
      crop_samples: length of a crop.

    Raises:
      InputError: if a folder is missing, or no file under `path` can be used.
    """
    paths, left_out = files.search(path)
    if not paths:
        raise no_audio(path, left_out, 'the path')
    with concurrent.futures.ThreadPoolExecutor() as threads:
        headers = list(threads.map(_read_header, paths))
    usable, skipped = [], []
    for file, header in zip(paths, headers, strict=True):
        if isinstance(header, str):
            skipped.append(header)
        elif header.samples_at(sample_rate) < crop_samples:
            skipped.append(
                f'{file} is shorter than a crop ({crop_samples} samples at {sample_rate} Hz)'
            )
        else:
            usable.append(header)
    if not usable:
        raise InputError(
            f'none of the {len(paths)} audio files in {path} can be used: {skipped[0]}'
        )
    return AudioFolder(usable, skipped, sample_rate, crop_samples, left_out)


def _read_header(path: str) -> files.AudioInfo | str:
    """The header, or why there is none."""
    try:
        info = files.read_info(path)
        log_once(path, info.warning)
        return info
    except InputError as error:
        return str(error)

"""Training crops: each is a pure function of the audio and (seed, step, row), without state."""

import collections
import concurrent.futures
import hashlib
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from m2l_jax.audio import files
from m2l_jax.audio.levels import Levels, check_loudness, log_once
from m2l_jax.audio.suffixes import no_audio
from m2l_jax.data import tfds
from m2l_jax.data.config import Collection
from m2l_jax.data.segments import check_crop, read_config
from m2l_jax.interface.errors import InputError

_logger = logging.getLogger(__name__)

# A silent, damaged or not finite crop is redrawn. After this number in a row, hardly anything in
# the collection is usable.
_MAX_ATTEMPTS = 2000
_SILENT_DRAWS_TO_REPORT = 20
_FILES_AHEAD = 4  # whole files, maybe hours long, that are read in parallel


class Place(NamedTuple):
    """A crop's place in the file or record `item`.

    `start`, a sample at the model's rate, and `channel` are numbers in a file. In a record, whose
    length is unknown until it is read, they are fractions of the possible numbers.
    """

    item: str
    number: int
    start: int | float
    channel: int | float


class AudioFolder:
    """Audio files, drawn in proportion to their length, and their channels evenly.

    Attributes:
      files: headers of the usable files, in a fixed order.
      skipped: a message for each of the others.
      samples: of all channels of the usable files.
    """

    def __init__(self, path: str, sample_rate: int, crop_samples: int):
        """Lists the files and reads their headers; arguments as of `open_source`."""
        paths, self._left_out = files.search(path)
        if not paths:
            raise no_audio(path, self._left_out, 'the path')
        self._sample_rate, self._crop_samples = sample_rate, crop_samples
        with concurrent.futures.ThreadPoolExecutor() as threads:
            headers = list(threads.map(self._read_header, paths))
        self.files = tuple(file for file in headers if not isinstance(file, str))
        self.skipped = tuple(reason for reason in headers if isinstance(reason, str))
        if not self.files:
            raise InputError(
                f'none of the {len(paths)} audio files in {path} can be used: {self.skipped[0]}'
            )
        lengths = [file.samples_at(sample_rate) for file in self.files]
        self._ends = np.cumsum([length - crop_samples + 1 for length in lengths])
        self.samples = int(np.dot(lengths, [file.channels for file in self.files]))

    def describe(self) -> str:
        """One line for the log."""
        minutes = sum(file.samples / file.sample_rate for file in self.files) / 60
        line = f'{len(self.files)} audio files, {minutes:.1f} minutes'
        line += f'; {len(self.skipped)} skipped' if self.skipped else ''
        return line + (f'; {self._left_out.describe()}' if self._left_out.files else '')

    def fingerprint(self) -> str:
        """Digest of the files' names and headers, not of the folder's path."""
        digest = hashlib.sha256()
        for file in self.files:
            header = (os.path.basename(file.path), file.sample_rate, file.channels, file.samples)
            digest.update(repr(header).encode('utf-8', 'surrogateescape'))
        return digest.hexdigest()

    def draw(self, random: np.random.Generator) -> Place:
        """Draws a crop's place; the crop may be silent or damaged."""
        position = int(random.integers(self._ends[-1]))
        number = int(np.searchsorted(self._ends, position, side='right'))
        start = position - int(self._ends[number - 1]) if number else position
        file = self.files[number]
        return Place(file.path, number, start, int(random.integers(file.channels)))

    def read(self, place: Place) -> np.ndarray:
        """Reads a crop, `[samples]`, float32; InputError if it is damaged, not finite or absurd."""
        channels = files.read(place.item, self._sample_rate, place.start, self._crop_samples)
        waveform = channels[place.channel]
        files.check_finite(waveform, place.item)
        check_loudness(waveform, place.item)
        return waveform

    def items(self) -> Iterator[tuple[str, np.ndarray | str]]:
        """Yields each file's path, and its waveform `[channels, samples]` or why it is unusable.

        A file that is too loud is unusable: the corpus in memory has 16 bits.
        """
        with concurrent.futures.ThreadPoolExecutor() as threads:
            for begin in range(0, len(self.files), _FILES_AHEAD):
                paths = [file.path for file in self.files[begin : begin + _FILES_AHEAD]]
                yield from zip(paths, threads.map(self._read_whole, paths), strict=True)

    def _read_header(self, path: str) -> files.AudioInfo | str:
        """Returns a file's header, or why the file is unusable."""
        try:
            info = files.read_info(path)
        except InputError as error:
            return str(error)
        log_once(path, info.warning)
        if info.samples_at(self._sample_rate) < self._crop_samples:
            return _too_short(path, self._crop_samples, self._sample_rate)
        return info

    def _read_whole(self, path: str) -> np.ndarray | str:
        levels = Levels()
        try:
            waveform = files.read(path, self._sample_rate, levels=levels)
        except InputError as error:
            return str(error)
        too_loud = levels.too_loud()
        return f'{path} is {too_loud}' if too_loud else waveform


class AudioDataset:
    """Records of a TFDS dataset, drawn evenly; methods as of `AudioFolder`."""

    skipped: tuple[str, ...] = ()
    samples: int | None = None  # unknown until the records are read

    def __init__(self, path: str, sample_rate: int, crop_samples: int):
        """Opens a dataset; arguments as of `open_source`."""
        self._records = tfds.AudioRecords(path)
        check_crop(tfds.split_of(path)[0], sample_rate, crop_samples)
        self._sample_rate, self._crop_samples = sample_rate, crop_samples

    def describe(self) -> str:
        """One line for the log."""
        return f'{len(self._records)} records of {self._records.path}'

    def fingerprint(self) -> str:
        """The dataset's name and version, and the split's size."""
        records = self._records
        return f'{records.dataset} {records.split} {len(records)} {records.bytes}'

    def draw(self, random: np.random.Generator) -> Place:
        """Draws a crop's place."""
        number = int(random.integers(len(self._records)))
        return Place(self._records.name(number), number, random.random(), random.random())

    def read(self, place: Place) -> np.ndarray:
        """Reads a crop, `[samples]`, float32; InputError for a damaged or short record."""
        waveform = self._records.read(place.number, self._sample_rate)
        starts = waveform.shape[1] - self._crop_samples + 1
        if starts < 1:
            raise InputError(_too_short(place.item, self._crop_samples, self._sample_rate))
        start = int(place.start * starts)
        return waveform[int(place.channel * len(waveform)), start : start + self._crop_samples]

    def items(self) -> Iterator[tuple[str, np.ndarray | str]]:
        """Yields each record's name, and its waveform or why it is unusable."""
        for number in range(len(self._records)):
            try:
                yield self._records.name(number), self._records.read(number, self._sample_rate)
            except InputError as error:
                yield self._records.name(number), str(error)


Source = AudioFolder | AudioDataset


def open_source(path: str, sample_rate: int, crop_samples: int) -> Source:
    """Opens audio files or a dataset.

    Args:
      path: as in `DataConfig.path`.
      sample_rate: of the crops, in Hz.
      crop_samples: length of a crop.

    Raises:
      InputError: if `path` does not exist or holds nothing usable.
    """
    if tfds.is_dataset(path):
        return AudioDataset(path, sample_rate, crop_samples)
    if read_config(tfds.split_of(path)[0]) is not None:
        raise InputError(f'{path} is no complete dataset: run `prepare` to its end first')
    return AudioFolder(path, sample_rate, crop_samples)


def open_collections(
    mix: Sequence[Collection], sample_rate: int, crop_samples: int
) -> list[tuple[Collection, Source]]:
    """Opens each collection of the mix, and logs what it holds and what is skipped.

    Raises:
      InputError: if a collection is missing or holds nothing usable; the message has its name.
    """
    opened = []
    for collection in mix:
        try:
            source = open_source(collection.path, sample_rate, crop_samples)
        except InputError as error:
            raise InputError(_name(collection, mix) + str(error)) from None
        _logger.info('%s%s', _name(collection, mix), source.describe())
        for reason in source.skipped:
            _logger.warning('skipping %s', reason)
        opened.append((collection, source))
    return opened


class CropReader:
    """Reads the crop of a step and row. Thread-safe.

    A row's collection is drawn first, by the weights. An unusable crop is redrawn from the same
    collection, so that the weights hold.

    Attributes:
      reported: item -> why crops of it were rejected.
    """

    def __init__(self, mix: Sequence[tuple[Collection, Source]], seed: int, min_rms: float):
        self.reported: dict[str, str] = {}
        self._mix = mix
        self._ends = np.cumsum([collection.weight for collection, _ in mix])
        self._seed = seed
        self._min_rms = min_rms
        self._silent_draws: collections.Counter[str] = collections.Counter()
        self._sounding: set[str] = set()
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raises an InputError if a collection has no usable crop."""
        for collection, source in self._mix:
            self._first_usable(collection, source, step=0, row=0)

    def read(self, step: int, row: int) -> np.ndarray:
        """Reads the crop of a row of a step's global batch, `[samples]`, float32.

        Raises:
          InputError: if hardly anything in the row's collection is usable.
        """
        return self._first_usable(*self._collection(step, row), step, row)[1]

    def locate(self, step: int, row: int) -> Place:
        """Returns the place of the crop that `read` reads."""
        return self._first_usable(*self._collection(step, row), step, row)[0]

    def _collection(self, step: int, row: int) -> tuple[Collection, Source]:
        position = self._random(step, row, 0).random() * self._ends[-1]
        return self._mix[int(np.searchsorted(self._ends[:-1], position, side='right'))]

    def _random(self, step: int, row: int, purpose: int) -> np.random.Generator:
        # Philox counts in the lowest word; the others identify the draw.
        bits = np.random.Philox(key=self._seed, counter=[0, purpose, row, step])
        return np.random.Generator(bits)

    def _first_usable(
        self, collection: Collection, source: Source, step: int, row: int
    ) -> tuple[Place, np.ndarray]:
        for attempt in range(_MAX_ATTEMPTS):
            place = source.draw(self._random(step, row, 1 + attempt))
            try:
                waveform = source.read(place)
            except InputError as error:
                with self._lock:
                    report(self.reported, place.item, str(error))
                continue
            if self._is_sounding(place.item, waveform):
                return place, waveform
        raise InputError(
            f'{_name(collection, self._mix)}{_MAX_ATTEMPTS} crops drawn in a row from '
            f'{collection.path} cannot be used (silent below RMS {self._min_rms}, damaged or not '
            'finite): check the path or lower data.min_rms'
        )

    def _is_sounding(self, item: str, waveform: np.ndarray) -> bool:
        is_silent = np.sqrt(np.mean(waveform**2)) < self._min_rms
        with self._lock:
            if not is_silent:
                self._sounding.add(item)  # its pauses are not reported
            elif item not in self._sounding:
                self._silent_draws[item] += 1
                if self._silent_draws[item] >= _SILENT_DRAWS_TO_REPORT:
                    reason = f'{item} is silent (RMS below {self._min_rms}): remove it'
                    report(self.reported, item, reason)
        return not is_silent


def report(reported: dict[str, str], item: str, reason: str) -> None:
    """Records and logs why an item is not used, the first time."""
    if item not in reported:
        reported[item] = reason
        _logger.warning('skipping %s', reason)


def _too_short(item: str, crop_samples: int, sample_rate: int) -> str:
    return f'{item} is shorter than a crop ({crop_samples} samples at {sample_rate} Hz)'


def _name(collection: Collection, mix: Sequence[object]) -> str:
    """Begins a message with the name of a collection, if there are several."""
    return f'data.mix {collection.name!r}: ' if len(mix) > 1 else ''

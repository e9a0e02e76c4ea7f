"""Audio files and datasets that crops are drawn and read from."""

import concurrent.futures
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from m2l_jax.audio import files
from m2l_jax.audio.levels import Levels, check_loudness, log_once
from m2l_jax.audio.planes import as_stereo, describe_surplus
from m2l_jax.audio.suffixes import no_audio
from m2l_jax.data import tfds
from m2l_jax.data.config import Collection
from m2l_jax.data.segments import check_crop, read_config
from m2l_jax.interface.errors import InputError

_logger = logging.getLogger(__name__)

_FILES_AHEAD = 4  # whole files, maybe hours long, that are read in parallel


class Place(NamedTuple):
    """A crop's place in the file or record `item`.

    `start`, a sample at the model's rate, and `channel` are numbers in a file. In a record, whose
    length is unknown until it is read, they are fractions of the possible numbers. A crop of stereo
    has both channels.
    """

    item: str
    number: int
    start: int | float
    channel: int | float


class AudioFolder:
    """Audio files, drawn in proportion to their length, and for mono their channels evenly.

    Attributes:
      files: headers of the usable files, in a fixed order.
      skipped: a message for each of the others.
      samples: of all signals, see `items`.
    """

    def __init__(self, path: str, sample_rate: int, crop_samples: int, stereo: bool = False):
        """Lists the files and reads their headers; arguments as of `open_source`."""
        paths, self._left_out = files.search(path)
        if not paths:
            raise no_audio(path, self._left_out, 'the path')
        self._sample_rate, self._crop_samples = sample_rate, crop_samples
        self._stereo = stereo
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
        signals = [1 if stereo else file.channels for file in self.files]
        self.samples = int(np.dot(lengths, signals))

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
        """Reads a crop, `[samples]`, or `[2, samples]` of stereo, float32.

        Raises:
          InputError: if it is damaged, not finite or absurd.
        """
        channels = files.read(place.item, self._sample_rate, place.start, self._crop_samples)
        waveform = as_stereo(channels) if self._stereo else channels[place.channel]
        files.check_finite(waveform, place.item)
        check_loudness(waveform, place.item)
        return waveform

    def items(self) -> Iterator[tuple[str, np.ndarray | str]]:
        """Yields each file's path, and its signals or why it is unusable.

        Signals are `[channels, samples]`, or `[1, 2, samples]` of stereo. A file that is too loud
        is unusable: the corpus in memory has 16 bits.
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
        if self._stereo and (surplus := describe_surplus(info.channels)):
            return f'{path} {surplus}'
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
        if too_loud:
            return f'{path} is {too_loud}'
        return as_stereo(waveform)[None] if self._stereo else waveform


class AudioDataset:
    """Records of a TFDS dataset, drawn evenly; methods as of `AudioFolder`."""

    skipped: tuple[str, ...] = ()
    samples: int | None = None  # unknown until the records are read

    def __init__(self, path: str, sample_rate: int, crop_samples: int, stereo: bool = False):
        """Opens a dataset; arguments as of `open_source`."""
        folder = tfds.split_of(path)[0]
        config = read_config(folder)
        if stereo and config is not None and not config.stereo:
            raise InputError(
                f'{path} was prepared with channels apart: for a stereo model, prepare it anew '
                'with --stereo, or train on the audio files'
            )
        self._records = tfds.AudioRecords(path)
        check_crop(folder, sample_rate, crop_samples)
        self._sample_rate, self._crop_samples = sample_rate, crop_samples
        self._stereo = stereo

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
        """Reads a crop, `[samples]`, or `[2, samples]` of stereo, float32.

        Raises:
          InputError: for a damaged or short record.
        """
        waveform = self._records.read(place.number, self._sample_rate)
        starts = waveform.shape[1] - self._crop_samples + 1
        if starts < 1:
            raise InputError(_too_short(place.item, self._crop_samples, self._sample_rate))
        start = int(place.start * starts)
        crop = waveform[:, start : start + self._crop_samples]
        if not self._stereo:
            return crop[int(place.channel * len(crop))]
        if surplus := describe_surplus(len(crop)):
            raise InputError(f'{place.item} {surplus}')
        return as_stereo(crop)

    def items(self) -> Iterator[tuple[str, np.ndarray | str]]:
        """Yields each record's name, and its signals or why it is unusable."""
        for number in range(len(self._records)):
            name = self._records.name(number)
            try:
                waveform = self._records.read(number, self._sample_rate)
            except InputError as error:
                yield name, str(error)
                continue
            if not self._stereo:
                yield name, waveform
            elif surplus := describe_surplus(len(waveform)):
                yield name, f'{name} {surplus}'
            else:
                yield name, as_stereo(waveform)[None]


Source = AudioFolder | AudioDataset


def open_source(path: str, sample_rate: int, crop_samples: int, stereo: bool = False) -> Source:
    """Opens audio files or a dataset.

    Args:
      path: as in `DataConfig.path`.
      sample_rate: of the crops, in Hz.
      crop_samples: length of a crop.
      stereo: crops have both channels, mono twice; audio of more channels is unusable.

    Raises:
      InputError: if `path` does not exist or holds nothing usable, or has its channels apart.
    """
    if tfds.is_dataset(path):
        return AudioDataset(path, sample_rate, crop_samples, stereo)
    if read_config(tfds.split_of(path)[0]) is not None:
        raise InputError(f'{path} is no complete dataset: run `prepare` to its end first')
    return AudioFolder(path, sample_rate, crop_samples, stereo)


def open_collections(
    mix: Sequence[Collection], sample_rate: int, crop_samples: int, stereo: bool = False
) -> list[tuple[Collection, Source]]:
    """Opens each collection of the mix, and logs what it holds and what is skipped.

    Raises:
      InputError: if a collection is missing or holds nothing usable; the message has its name.
    """
    opened = []
    for collection in mix:
        try:
            source = open_source(collection.path, sample_rate, crop_samples, stereo)
        except InputError as error:
            raise InputError(name_in(mix, collection) + str(error)) from None
        _logger.info('%s%s', name_in(mix, collection), source.describe())
        for reason in source.skipped:
            _logger.warning('skipping %s', reason)
        opened.append((collection, source))
    return opened


def name_in(mix: Sequence[object], collection: Collection) -> str:
    """Begins a message with the name of a collection, if there are several."""
    return f'data.mix {collection.name!r}: ' if len(mix) > 1 else ''


def _too_short(item: str, crop_samples: int, sample_rate: int) -> str:
    return f'{item} is shorter than a crop ({crop_samples} samples at {sample_rate} Hz)'

"""TFDS datasets with audio: their records, and crops of them. Prepared ones, and any public one."""

import dataclasses
import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from m2l_jax.audio.files import resample
from m2l_jax.audio.pcm import FULL_SCALE, from_int16
from m2l_jax.data.segments import check_crop
from m2l_jax.interface.errors import InputError, first_line

INFO = 'dataset_info.json'  # what TFDS opens a dataset by

_PREFIX = 'tfds:'

_AUDIO, _SAMPLE_RATE = 'audio', 'sample_rate'
_SPLIT = 'train'


@dataclasses.dataclass(frozen=True)
class RecordPlace:
    """A crop's place in a record, whose length and channels only reading it tells.

    Attributes:
      item: the record.
      number: of the record.
      start: how far along the record's possible starts, in [0, 1).
      channel: how far along its channels, in [0, 1).
    """

    item: str
    number: int
    start: float
    channel: float


class AudioRecords:
    """The records of a dataset with an `audio` feature, read one by one, in any order.

    TFDS offers that for the array_record format; TensorFlow is not needed for it.

    Attributes:
      path: of the dataset, with its split.
      dataset: its name and version.
      split: the split's name.
      bytes: of the split.
    """

    def __init__(self, path: str):
        """Opens a prepared dataset's folder or `tfds:NAME[SPLIT]`; raises InputError."""
        folder, self.split = split_of(path)
        builder = _open_builder(folder)
        self._feature_rate = _check_features(builder.info.features, folder)
        self._records = _open_records(builder, folder, self.split)
        self.path = f'{folder}[{self.split}]'
        self.bytes = builder.info.splits[self.split].num_bytes
        self.dataset = builder.info.full_name

    def __len__(self) -> int:
        return len(self._records)

    def name(self, number: int) -> str:
        """Of a record, for messages."""
        return f'{self.path}[{number}]'

    def read(self, number: int, sample_rate: int) -> np.ndarray:
        """A whole record, `[channels, samples]`, float32, resampled to `sample_rate` in Hz.

        Raises:
          InputError: if it is damaged, or no audio.
        """
        try:
            record = self._records[number]
        except Exception as error:  # whatever the record reader, TFDS or protobuf make of it
            raise InputError(
                f'{self.name(number)} cannot be read ({first_line(error)}): prepare it again'
            ) from None
        audio = np.asarray(record[_AUDIO])
        if audio.dtype.kind == 'i' and audio.itemsize > 2 and np.any(np.abs(audio) > FULL_SCALE):
            raise InputError(f'{self.name(number)} has integers of more than 16 bits')
        waveform = _as_waveform(audio)
        if not np.all(np.isfinite(waveform)):
            raise InputError(f'{self.name(number)} holds NaN or infinite samples')
        rate = int(record.get(_SAMPLE_RATE, 0)) or self._feature_rate
        if rate == sample_rate:
            return waveform
        return resample(waveform, rate, sample_rate)


class AudioDataset:
    """Training crops of a dataset's records, each of which is as likely to be drawn."""

    skipped: tuple[str, ...] = ()
    samples: int | None = None

    def __init__(self, path: str, sample_rate: int, crop_samples: int):
        """Opens a dataset as `AudioRecords` does; raises InputError, for crops too long as well."""
        self._records = AudioRecords(path)
        check_crop(split_of(path)[0], sample_rate, crop_samples)
        self._sample_rate = sample_rate
        self._crop_samples = crop_samples

    def describe(self) -> str:
        """One line for the log."""
        return f'{len(self._records)} records of {self._records.path}'

    def fingerprint(self) -> str:
        """Of the dataset's name and version and the split's size."""
        records = self._records
        return f'{records.dataset} {records.split} {len(records)} {records.bytes}'

    def draw(self, random: np.random.Generator) -> RecordPlace:
        """A random crop's place."""
        number = int(random.integers(len(self._records)))
        return RecordPlace(self._records.name(number), number, random.random(), random.random())

    def read(self, place: RecordPlace) -> np.ndarray:
        """The crop, `[samples]`, float32.

        Raises:
          InputError: if the record is damaged, or shorter than a crop.
        """
        waveform = self._records.read(place.number, self._sample_rate)
        starts = waveform.shape[1] - self._crop_samples + 1
        if starts < 1:
            raise InputError(
                f'{place.item} is shorter than a crop ({self._crop_samples} samples at '
                f'{self._sample_rate} Hz)'
            )
        channel = waveform[int(place.channel * len(waveform))]
        start = int(place.start * starts)
        return channel[start : start + self._crop_samples]

    def items(self) -> Iterator[tuple[str, np.ndarray | str]]:
        """Every record's name, and its waveform `[channels, samples]` or why it cannot be read."""
        for number in range(len(self._records)):
            try:
                yield self._records.name(number), self._records.read(number, self._sample_rate)
            except InputError as error:
                yield self._records.name(number), str(error)


def is_dataset(path: str) -> bool:
    """Whether a path is one of a dataset, and not of audio files."""
    return path.startswith(_PREFIX) or os.path.isfile(f'{split_of(path)[0]}/{INFO}')


def split_of(path: str) -> tuple[str, str]:
    """`FOLDER[SPLIT]` or `tfds:NAME[SPLIT]` in its two parts; 'train' where no split is named."""
    match = re.fullmatch(r'(.*)\[([^\]]+)\]', path)
    return (match[1], match[2]) if match else (path, _SPLIT)


def _open_builder(path: str) -> Any:
    import tensorflow_datasets as tfds

    try:
        if path.startswith(_PREFIX):
            return tfds.builder(path.removeprefix(_PREFIX), try_gcs=False)
        return tfds.builder_from_directory(path)
    except Exception as error:  # TFDS has no common class of what may be wrong
        raise InputError(f'{path} is no dataset that TFDS can open ({first_line(error)})') from None


def _check_features(features: Any, path: str) -> int:
    """The sample rate that the `audio` feature tells, or 0 where each record has its own."""
    if _AUDIO not in features:
        raise InputError(
            f'{path} has no feature {_AUDIO!r}, only {", ".join(sorted(features))}: '
            'take a dataset of audio'
        )
    feature = features[_AUDIO]
    kind, rank = getattr(feature, 'np_dtype', None), len(getattr(feature, 'shape', None) or ())
    if not isinstance(kind, type | np.dtype) or not np.issubdtype(kind, np.number):
        raise InputError(f'{path}: the feature {_AUDIO!r} is no waveform of numbers')
    if rank not in (1, 2):
        raise InputError(f'{path}: the feature {_AUDIO!r} has {rank} axes: 1 or 2 are read')
    rate = getattr(feature, 'sample_rate', None) or 0  # TFDS stores an unknown rate as 0
    if not rate and _SAMPLE_RATE not in features:
        raise InputError(f'{path} does not tell its sample rate: build it again with `prepare`')
    return int(rate)


def _open_records(builder: Any, path: str, split: str) -> Any:
    if split not in builder.info.splits:
        has = ', '.join(sorted(builder.info.splits)) or 'none: download and prepare it first'
        raise InputError(f'{path} has no split {split!r} (it has {has}): pass {path}[SPLIT]')
    try:
        records = builder.as_data_source(split)
    except Exception as error:
        raise InputError(
            f'{path} cannot be read record by record ({first_line(error)}): '
            "prepare it with file_format='array_record'"
        ) from None
    if not len(records):
        raise InputError(f'{path} has no records in {split!r}')
    return records


def _as_waveform(audio: np.ndarray) -> np.ndarray:
    """`[samples]` or `[samples, channels]`, integers of 16 bits or floats, to `[channels, N]`."""
    if np.issubdtype(audio.dtype, np.integer):  # TFDS keeps 16-bit samples as int64 too
        audio = from_int16(audio)
    audio = audio.astype(np.float32, copy=False)
    return audio[None] if audio.ndim == 1 else np.ascontiguousarray(audio.T)

"""TFDS datasets: reads audio record by record, and writes this project's own.

TFDS alone can open them: `builder_from_directory(folder).as_data_source('train')`. Nothing here
needs TensorFlow. TFDS is imported within functions, because that takes long.
"""

import dataclasses
import errno
import functools
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from m2l_jax.audio.files import resample
from m2l_jax.audio.levels import FULL_SCALE, from_int16
from m2l_jax.interface.errors import InputError, first_line
from m2l_jax.interface.paths import replaced_file

INFO = 'dataset_info.json'  # TFDS opens a dataset by it
SPLIT = 'train'
_PREFIX = 'tfds:'
_AUDIO, _SAMPLE_RATE = 'audio', 'sample_rate'
# One record a group and no compression: records are read one by one, in any order.
_WRITER_OPTIONS = 'group_size:1,uncompressed'


def is_dataset(path: str) -> bool:
    """True for a dataset's path, False for one of files."""
    return path.startswith(_PREFIX) or os.path.isfile(f'{split_of(path)[0]}/{INFO}')


def split_of(path: str) -> tuple[str, str]:
    """Splits `FOLDER[SPLIT]` or `tfds:NAME[SPLIT]` into its two parts; the default is 'train'."""
    match = re.fullmatch(r'(.*)\[([^\]]+)\]', path)
    return (match[1], match[2]) if match else (path, SPLIT)


def split_names(folder: str) -> list[str]:
    """The splits of a prepared dataset's folder or of `tfds:NAME`; raises InputError."""
    return sorted(_open_builder(folder).info.splits)


class AudioRecords:
    """Records of a dataset with an `audio` feature, read in any order.

    TFDS can do so if the dataset is in the array_record format.

    Attributes:
      path: of the dataset, with its split.
      dataset: its name and version.
      split: the split's name.
      features: of a record, TFDS's own `FeaturesDict`.
      bytes: of the split.
    """

    def __init__(self, path: str):
        """Opens a prepared dataset's folder or `tfds:NAME[SPLIT]`; raises InputError."""
        folder, self.split = split_of(path)
        builder = _open_builder(folder)
        self.features = builder.info.features
        self._feature_rate = _check_features(self.features, folder)
        self._records = _open_records(builder, folder, self.split)
        self.path = f'{folder}[{self.split}]'
        self.bytes = builder.info.splits[self.split].num_bytes
        self.dataset = builder.info.full_name

    def __len__(self) -> int:
        return len(self._records)

    def name(self, number: int) -> str:
        """Names a record in messages."""
        return f'{self.path}[{number}]'

    def fields(self, number: int) -> dict[str, Any]:
        """Reads a record's features as TFDS decodes them; an InputError if it is damaged."""
        try:
            return self._records[number]
        except Exception as error:  # of the record reader, TFDS or protobuf
            raise InputError(
                f'{self.name(number)} cannot be read ({first_line(error)}): prepare it again'
            ) from None

    def read(self, number: int, sample_rate: int) -> np.ndarray:
        """Reads a whole record, `[channels, samples]`, float32, resampled to `sample_rate` in Hz.

        Raises:
          InputError: if it is damaged, or no audio.
        """
        name, record = self.name(number), self.fields(number)
        audio = np.asarray(record[_AUDIO])
        if audio.dtype.kind in 'iu':
            # TFDS keeps 16-bit samples as int64 too.
            if audio.itemsize > 2 and np.any(np.abs(audio) > FULL_SCALE):
                raise InputError(f'{name} has integers of more than 16 bits')
            audio = from_int16(audio)
        waveform = np.ascontiguousarray(np.atleast_2d(audio.T), np.float32)
        if not np.all(np.isfinite(waveform)):
            raise InputError(f'{name} holds NaN or infinite samples')
        rate = int(record.get(_SAMPLE_RATE, 0)) or self._feature_rate
        return waveform if rate == sample_rate else resample(waveform, rate, sample_rate)


def _open_builder(path: str) -> Any:
    import tensorflow_datasets as tfds

    try:
        if path.startswith(_PREFIX):
            return tfds.builder(path.removeprefix(_PREFIX), try_gcs=False)
        return tfds.builder_from_directory(path)
    except Exception as error:  # TFDS's errors have no common class
        raise InputError(f'{path} is no dataset that TFDS can open ({first_line(error)})') from None


def _check_features(features: Any, path: str) -> int:
    """Returns the sample rate of the `audio` feature, 0 where each record has its own."""
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
        raise InputError(f'{path} states no sample rate: build it again with `prepare`')
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


@dataclasses.dataclass(frozen=True)
class RecordFormat:
    """A kind of dataset.

    Attributes:
      name: of the dataset; its shards' names begin with it.
      version: of the records' fields.
      features: `tfds.features.FeaturesDict` of a record.
    """

    name: str
    version: str
    features: Any

    def shard_path(self, folder: str | os.PathLike[str], number: int, shards: int) -> pathlib.Path:
        """Path at which TFDS looks for a shard."""
        template = self._template(folder)
        return pathlib.Path(template.sharded_filepath(shard_index=number, num_shards=shards))

    def write_metadata(
        self, folder: str | os.PathLike[str], lengths: Sequence[int], size: int, description: str
    ) -> None:
        """Makes a folder of complete shards a dataset: `features.json` and `dataset_info.json`.

        Args:
          folder: of the shards; `builder_from_directory` will open it.
          lengths: records in each shard.
          size: of all shards, in bytes.
          description: of the dataset.

        Raises:
          InputError: if they cannot be written.
        """
        from tensorflow_datasets import core

        info = core.DatasetInfo(
            builder=core.DatasetIdentity(
                name=self.name,
                version=core.Version(self.version),
                data_dir=os.fspath(folder),
                module_name='',
            ),
            features=self.features,
            description=description,
        )
        info.set_file_format(core.FileFormat.ARRAY_RECORD)
        template = self._template(folder)
        split = core.SplitInfo(SPLIT, list(lengths), size, filename_template=template)
        info.set_splits(core.SplitDict([split]))
        try:
            # TFDS writes elsewhere, and `INFO` is moved last: a killed process leaves no part.
            with tempfile.TemporaryDirectory() as scratch:
                info.write_to_directory(scratch)
                for name in sorted(os.listdir(scratch), key=lambda name: name == INFO):
                    with replaced_file(pathlib.Path(folder, name)) as partial:
                        shutil.copyfile(os.path.join(scratch, name), partial)
        except OSError as error:
            raise InputError(
                f'{error.filename or folder} cannot be written ({error.strerror or error})'
            ) from None

    def _template(self, folder: str | os.PathLike[str]) -> Any:
        from tensorflow_datasets import core

        return core.ShardedFileTemplate(
            data_dir=folder, dataset_name=self.name, split=SPLIT, filetype_suffix='array_record'
        )


@functools.cache
def segment_format(stereo: bool = False) -> RecordFormat:
    """Format of a prepared dataset: a record is a segment of a channel of a file, or of all."""
    from tensorflow_datasets import features

    shape = (None, None) if stereo else (None,)  # [samples, channels]
    encoding = features.Encoding.BYTES  # read at once; a list of numbers is read one by one
    fields = {
        'audio': features.Tensor(shape=shape, dtype=np.int16, encoding=encoding),
        'sample_rate': np.int32,  # of the audio here, Hz
        'source': features.Text(),  # the file's path below the input folder
        'offset': np.int64,  # of the first sample, in the resampled file
        'channel': np.int32,  # not of stereo
        'channels': np.int32,  # of the file
        'source_sample_rate': np.int32,  # of the file, Hz
        'peak': np.float32,  # largest magnitude, before clipping; full scale is 1
        'rms': np.float32,
    }
    if stereo:
        del fields['channel']
    version = '2.0.0' if stereo else '1.0.0'
    return RecordFormat('m2l_audio', version, features.FeaturesDict(fields))


class ShardWriter:
    """Writes records into a shard; a context manager.

    The same records give the same bytes. Any method raises an OSError if the file cannot be
    written.
    """

    def __init__(self, path: str | os.PathLike[str], features: Any):
        """Begins the shard at `path`, of records with `features`, a `FeaturesDict`."""
        from array_record.python.array_record_module import ArrayRecordWriter
        from tensorflow_datasets import core

        self._path = path
        self._encode = features.encode_example
        serializer = core.example_serializer.ExampleSerializer(features.get_serialized_info())
        self._to_example = serializer.get_tf_example
        self._writer = self._guard(ArrayRecordWriter, os.fspath(path), _WRITER_OPTIONS)

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends a record with the fields of `features`."""
        example = self._to_example(self._encode(record))
        # `features.serialize_example` is not deterministic: it orders the fields at random.
        self._guard(self._writer.write, example.SerializeToString(deterministic=True))

    def __enter__(self) -> 'ShardWriter':
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._guard(self._writer.close)

    def _guard(self, function, *arguments):
        try:
            return function(*arguments)
        except RuntimeError as error:  # array_record's own, for a full disk too
            # "write() failed: No space left on device; writing …"
            reason = first_line(error).partition(';')[0]
            raise OSError(errno.EIO, reason, os.fspath(self._path)) from None

"""The dataset of audio segments: what a record holds, and how TFDS is told of it.

`tensorflow_datasets.builder_from_directory(folder).as_data_source('train')` opens it, with nothing
of this project and without TensorFlow.
"""

import errno
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from m2l_jax.interface.errors import InputError, first_line

NAME = 'm2l_audio'
SPLIT = 'train'
VERSION = '1.0.0'

# One record a group and no compression, for records are read one by one, in any order.
_WRITER_OPTIONS = 'group_size:1,uncompressed'
_INFO = 'dataset_info.json'


def features() -> tfds.features.FeaturesDict:
    """What a record holds: a segment of one channel of a file."""
    return tfds.features.FeaturesDict(
        {
            # As bytes, which are read at once, a list of numbers one by one.
            'audio': tfds.features.Tensor(
                shape=(None,), dtype=np.int16, encoding=tfds.features.Encoding.BYTES
            ),
            'sample_rate': np.int32,  # of the audio here, Hz
            'source': tfds.features.Text(),  # the file's path below the input folder
            'offset': np.int64,  # of the first sample, in the resampled file
            'channel': np.int32,
            'channels': np.int32,  # of the file
            'source_sample_rate': np.int32,  # of the file, Hz
            'peak': np.float32,  # largest magnitude, before clipping; full scale is 1
            'rms': np.float32,
        }
    )


def shard_path(folder: str | os.PathLike[str], number: int, shards: int) -> pathlib.Path:
    """Where TFDS looks for a shard."""
    return pathlib.Path(_template(folder).sharded_filepath(shard_index=number, num_shards=shards))


class ShardWriter:
    """Writes records into a shard; a context manager.

    The same records give the same bytes. Any method raises an OSError if the file cannot be
    written.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self._path = path
        features_dict = features()
        self._encode = features_dict.encode_example
        self._serializer = tfds.core.example_serializer.ExampleSerializer(
            features_dict.get_serialized_info()
        )
        self._writer = self._guard(ArrayRecordWriter, os.fspath(path), _WRITER_OPTIONS)

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends a record with the fields of `features`."""
        example = self._serializer.get_tf_example(self._encode(record))
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


def write_metadata(
    folder: str | os.PathLike[str], lengths: Sequence[int], size: int, description: str
) -> None:
    """Makes a folder of complete shards a dataset: writes `features.json` and `dataset_info.json`.

    Args:
      folder: where the shards are, and what `builder_from_directory` will open.
      lengths: records in each shard.
      size: of all shards, in bytes.
      description: of the dataset.

    Raises:
      InputError: if they cannot be written.
    """
    info = tfds.core.DatasetInfo(
        builder=tfds.core.DatasetIdentity(
            name=NAME,
            version=tfds.core.Version(VERSION),
            data_dir=os.fspath(folder),
            module_name='',
        ),
        features=features(),
        description=description,
    )
    info.set_file_format(tfds.core.FileFormat.ARRAY_RECORD)
    split = tfds.core.SplitInfo(
        name=SPLIT,
        shard_lengths=list(lengths),
        num_bytes=size,
        filename_template=_template(folder),
    )
    info.set_splits(tfds.core.SplitDict([split]))
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix='.', suffix='.partial') as partial:
            info.write_to_directory(partial)
            # What TFDS opens a dataset by comes last: a dataset is there whole or not at all.
            for name in sorted(os.listdir(partial), key=lambda name: name == _INFO):
                os.replace(os.path.join(partial, name), os.path.join(folder, name))
    except OSError as error:
        raise InputError(f'{folder} cannot be written ({error.strerror or error})') from None


def remove_metadata(folder: str | os.PathLike[str]) -> None:
    """Makes a dataset unreadable while its shards are being mended."""
    (pathlib.Path(folder) / _INFO).unlink(missing_ok=True)


def has_metadata(folder: str | os.PathLike[str]) -> bool:
    """Whether the folder is a complete dataset."""
    return (pathlib.Path(folder) / _INFO).is_file()


def _template(folder: str | os.PathLike[str]) -> tfds.core.ShardedFileTemplate:
    return tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=NAME, split=SPLIT, filetype_suffix='array_record'
    )

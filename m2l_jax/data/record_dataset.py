"""Datasets of array_record shards which plain TFDS opens: how any of this project's is written.

`tensorflow_datasets.builder_from_directory(folder).as_data_source('train')` opens them, with
nothing of this project and without TensorFlow.
"""

import dataclasses
import errno
import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from m2l_jax.data.audio_dataset import INFO
from m2l_jax.interface.errors import InputError, first_line
from m2l_jax.interface.paths import replaced_file

SPLIT = 'train'

# One record a group and no compression, for records are read one by one, in any order.
_WRITER_OPTIONS = 'group_size:1,uncompressed'


@dataclasses.dataclass(frozen=True)
class RecordFormat:
    """A kind of dataset.

    Attributes:
      name: of the dataset, which its shards' names begin with.
      version: of what a record holds.
      features: of a record, in TFDS's terms.
    """

    name: str
    version: str
    features: tfds.features.FeaturesDict

    def shard_path(self, folder: str | os.PathLike[str], number: int, shards: int) -> pathlib.Path:
        """Where TFDS looks for a shard."""
        template = self._template(folder)
        return pathlib.Path(template.sharded_filepath(shard_index=number, num_shards=shards))

    def write_metadata(
        self,
        folder: str | os.PathLike[str],
        lengths: Sequence[int],
        size: int,
        description: str,
    ) -> None:
        """Makes a folder of complete shards a dataset: `features.json` and `dataset_info.json`.

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
                name=self.name,
                version=tfds.core.Version(self.version),
                data_dir=os.fspath(folder),
                module_name='',
            ),
            features=self.features,
            description=description,
        )
        info.set_file_format(tfds.core.FileFormat.ARRAY_RECORD)
        split = tfds.core.SplitInfo(
            name=SPLIT,
            shard_lengths=list(lengths),
            num_bytes=size,
            filename_template=self._template(folder),
        )
        info.set_splits(tfds.core.SplitDict([split]))
        try:
            # Elsewhere, for a process that is killed leaves it.
            with tempfile.TemporaryDirectory() as scratch:
                info.write_to_directory(scratch)
                # `INFO` comes last: a dataset is there whole or not at all.
                for name in sorted(os.listdir(scratch), key=lambda name: name == INFO):
                    with replaced_file(pathlib.Path(folder, name)) as partial:
                        shutil.copyfile(os.path.join(scratch, name), partial)
        except OSError as error:
            raise InputError(
                f'{error.filename or folder} cannot be written ({error.strerror or error})'
            ) from None

    def _template(self, folder: str | os.PathLike[str]) -> tfds.core.ShardedFileTemplate:
        return tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=self.name, split=SPLIT, filetype_suffix='array_record'
        )


class ShardWriter:
    """Writes records into a shard; a context manager.

    The same records give the same bytes. Any method raises an OSError if the file cannot be
    written.
    """

    def __init__(self, path: str | os.PathLike[str], features: tfds.features.FeaturesDict):
        """Begins the shard at `path`, of records with `features`."""
        self._path = path
        self._encode = features.encode_example
        self._serializer = tfds.core.example_serializer.ExampleSerializer(
            features.get_serialized_info()
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


def remove_metadata(folder: str | os.PathLike[str]) -> None:
    """Makes a dataset unreadable while its shards are being mended."""
    (pathlib.Path(folder) / INFO).unlink(missing_ok=True)


def has_metadata(folder: str | os.PathLike[str]) -> bool:
    """Whether the folder is a complete dataset."""
    return (pathlib.Path(folder) / INFO).is_file()

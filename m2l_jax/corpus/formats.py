"""Formats for latents: writes files or datasets, and reads datasets.

`FORMATS` names them; a new one is a class here and an entry there. Plain TFDS opens a dataset, see
`data.tfds`; in bfloat16 only after an `import` of TensorFlow, JAX or ml_dtypes.
"""

import contextlib
import dataclasses
import itertools
import os
import pathlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import ml_dtypes  # noqa: F401 -- makes 'bfloat16' known to NumPy, and so to TFDS
import numpy as np

from m2l_jax.corpus import store
from m2l_jax.corpus.plan import Output, ShardSummary, describe_output
from m2l_jax.corpus.store import StoredLatents
from m2l_jax.data.tfds import SPLIT, RecordFormat, ShardWriter, segment_format
from m2l_jax.interface.errors import InputError, first_line
from m2l_jax.interface.paths import replaced_file

DATASET = 'm2l_latents'
_VERSION = '1.0.0'

# Limit of a protocol buffer, 2 GiB, with room for the other fields.
_MOST_BYTES = (1 << 31) - (1 << 20)


@dataclasses.dataclass(frozen=True)
class Target:
    """The output of an encoding job."""

    folder: pathlib.Path
    format: str  # one of `FORMATS`
    width: int  # numbers per frame: 64 for latents, 8192 for features of the released model
    dtype: str  # of the numbers, one of `store.STORAGE_DTYPES`, or `store.TOKEN_DTYPE`
    shards: int  # in the whole job

    def record_format(self) -> RecordFormat:
        """Returns the format of a dataset's records."""
        return latent_records(self.width, self.dtype)


class FileFormat(contextlib.AbstractContextManager):
    """Writes a file for each input, under the same path: `.npz`, or `.npy` and JSON.

    Attributes:
      outputs: files written, complete once the shard is closed.
    """

    def __init__(self, target: Target, number: int):
        self.outputs: list[Output] = []
        self._folder = target.folder
        self._suffix = f'.{target.format}'

    def check(self, source: str, stored: StoredLatents) -> None:
        """Raises an InputError if the output's name is too long."""
        for path in store.written_paths(self._path(source)):
            store.check_name(path)

    def write(self, source: str, stored: StoredLatents) -> None:
        """Writes the latents of a file; raises an InputError or OSError."""
        path = self._path(source)
        store.write_latents(path, stored)
        for written in store.written_paths(path):
            name = written.relative_to(self._folder).as_posix()
            self.outputs.append(describe_output(self._folder, name, int(written == path)))

    def __exit__(self, *_: object) -> None: ...

    @staticmethod
    def complete(target: Target, summaries: Iterable[ShardSummary]) -> None:
        """Does nothing: the files are complete."""

    def _path(self, source: str) -> pathlib.Path:
        return self._folder / store.mirrored_name(source, self._suffix)


class DatasetFormat(contextlib.AbstractContextManager):
    """Writes a TFDS dataset with a record for each channel of each input; see `FileFormat`.

    The shard appears under its name when it is closed without an error.
    """

    def __init__(self, target: Target, number: int):
        self.outputs: list[Output] = []
        self._records = 0
        record_format = target.record_format()
        self._path = record_format.shard_path(target.folder, number, target.shards)
        with contextlib.ExitStack() as stack:
            partial = stack.enter_context(replaced_file(self._path))
            self._writer = stack.enter_context(ShardWriter(partial, record_format.features))
            self._stack = stack.pop_all()

    def check(self, source: str, stored: StoredLatents) -> None:
        """Raises an InputError if a channel of a file is too large for a record."""
        if stored.latents[0].nbytes > _MOST_BYTES:
            raise InputError(
                f'{source}: a channel has {stored.latents[0].nbytes / 1e9:.1f} GB of '
                f'{stored.kind}, a record holds 2: store float16 or bfloat16, split the file or '
                'use --format=npy'
            )

    def write(self, source: str, stored: StoredLatents) -> None:
        """Appends the records of a file; raises an OSError."""
        self._records += write_records(self._writer, source, stored)

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        self._stack.__exit__(kind, *rest)
        if kind is None:
            self.outputs.append(describe_output(self._path.parent, self._path.name, self._records))

    @staticmethod
    def complete(target: Target, summaries: Iterable[ShardSummary]) -> None:
        """Writes the metadata that TFDS opens the dataset by."""
        outputs = [output for summary in summaries for output in summary.outputs]
        lengths, size = [output.records for output in outputs], sum(o.bytes for o in outputs)
        text = describe(target.dtype)
        target.record_format().write_metadata(target.folder, lengths, size, text)


FORMATS = {'npz': FileFormat, 'npy': FileFormat, 'tfds': DatasetFormat}


def latent_records(width: int, dtype: str) -> RecordFormat:
    """Returns the format of records that each hold one channel of a file; see `Target`."""
    import tensorflow_datasets as tfds  # takes seconds

    tensor, raw = tfds.features.Tensor, tfds.features.Encoding.BYTES
    of_tokens = {'levels': np.int32} if dtype == store.TOKEN_DTYPE else {}
    features = tfds.features.FeaturesDict(
        {
            # Bytes are read at once, a list of numbers one by one.
            'latents': tensor(shape=(None, width), dtype=np.dtype(dtype), encoding=raw),
            'kind': tfds.features.Text(),  # 'latents', 'features' or 'tokens'
            'source': tfds.features.Text(),  # the file's path below the input folder
            'sample_rate': np.int32,  # of the audio that was encoded, Hz
            'samples': np.int64,  # of that audio
            'channel': np.int32,
            'channels': np.int32,  # records of this source
            'channel_mode': tfds.features.Text(),  # 'each', 'mono', 'mid_side' or 'joint'
            # First frame of each separately encoded chunk.
            'chunk_offsets': tensor(shape=(None,), dtype=np.int64, encoding=raw),
            # As bytes: TFDS keeps a plain number in single precision.
            'scale': tensor(shape=(), dtype=np.float64, encoding=raw),
            'model': tfds.features.Text(),
            **of_tokens,
        }
    )
    return RecordFormat(DATASET, _VERSION, features)


def describe(dtype: str) -> str:
    """Returns the description in a dataset of a dtype."""
    text = (
        "Latents of audio files, [frames, width], a record a channel. The model's own are "
        'latents * scale. The channels of a file are consecutive records.'
    )
    if dtype == store.TOKEN_DTYPE:
        return (
            'Tokens of audio files, [frames, width], a record a channel. The latents are '
            '2 * tokens / (levels - 1) - 1. The channels of a file are consecutive records.'
        )
    note = ' Opened without TensorFlow it needs `import ml_dtypes` (JAX does it) before.'
    return text + note if dtype == 'bfloat16' else text


def write_records(writer: ShardWriter, source: str, stored: StoredLatents) -> int:
    """Appends a record for each channel of a file, and returns their number; raises an OSError."""
    of_tokens = {} if stored.levels is None else {'levels': stored.levels}
    for channel, latents in enumerate(stored.latents):
        writer.write(
            {
                'latents': np.ascontiguousarray(latents.T),  # [frames, width]
                'kind': stored.kind,
                'source': source,
                'sample_rate': stored.sample_rate,
                'samples': stored.samples,
                'channel': channel,
                'channels': len(stored.latents),
                'channel_mode': stored.channel_mode,
                'chunk_offsets': np.array(stored.chunk_offsets, np.int64),
                'scale': np.float64(stored.scale),
                'model': stored.model,
                **of_tokens,
            }
        )
    return len(stored.latents)


def join_records(records: list[Mapping[str, Any]]) -> StoredLatents:
    """Joins the records of a file, its channels; raises a ValueError if some are missing."""
    first = records[0]
    numbers = [record['channel'] for record in records]
    if numbers != list(range(first['channels'])):
        raise ValueError(f'{first["source"].decode()} has channels {numbers}')
    latents = np.stack([record['latents'].T for record in records])  # [channels, width, frames]
    return store.check(
        StoredLatents(
            latents,
            first['sample_rate'],
            first['samples'],
            float(first['scale']),
            first['model'].decode(),
            first['channel_mode'].decode(),
            tuple(first['chunk_offsets'].tolist()),
            first['kind'].decode(),
            int(first['levels']) if 'levels' in first else None,
        )
    )


def read_format(
    folder: str | os.PathLike[str], kinds: Collection[str] = (DATASET,)
) -> RecordFormat:
    """Reads the format of the dataset in a folder.

    Raises:
      InputError: if there is none, or its name is not among `kinds`.
    """
    info = _open_builder(folder, kinds).info
    if info.name != DATASET:
        return segment_format(stereo=len(info.features['audio'].shape) == 2)
    feature = info.features['latents']
    return latent_records(feature.shape[1], np.dtype(feature.np_dtype).name)


def shard_lengths(
    folder: str | os.PathLike[str], split: str = SPLIT, kinds: Collection[str] = (DATASET,)
) -> dict[str, int]:
    """Reads the number of records in each shard of the dataset in a folder, by the shard's path.

    Raises:
      InputError: as `read_format` does, or if there is no such split.
    """
    builder = _open_builder(folder, kinds)
    if split not in builder.info.splits:
        raise InputError(f'{folder} has no split {split!r}, only {SPLIT!r}')
    found = builder.info.splits[split]
    return dict(zip(map(os.fspath, found.filepaths), found.shard_lengths, strict=True))


def is_shard(path: str) -> bool:
    """True for a shard of a dataset."""
    return '.array_record-' in os.path.basename(path)


def read_shard(
    path: str | os.PathLike[str], record_format: RecordFormat
) -> Iterator[tuple[str, StoredLatents]]:
    """Yields each file of a shard of latents, its channels joined, with its source.

    Raises:
      InputError: if the shard cannot be read, or lacks channels of a file.
    """
    records = read_records(path, record_format)
    with _damage_named(path, record_format):
        for source, channels in itertools.groupby(records, key=lambda record: record['source']):
            yield source.decode(), join_records(list(channels))


def read_records(
    path: str | os.PathLike[str], record_format: RecordFormat
) -> Iterator[Mapping[str, Any]]:
    """Yields the records of a shard of any dataset.

    Raises:
      InputError: if it cannot be read.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    with _damage_named(path, record_format):
        os.stat(path)  # array_record doesn't name a missing file
        reader = ArrayRecordReader(os.fspath(path))
        try:
            if not reader.ok():  # it would read no records, without an error
                raise ValueError('no array_record file, or one cut short')
            for number in range(reader.num_records()):
                yield record_format.features.deserialize_example_np(reader.read([number])[0])
        finally:
            reader.close()


@contextlib.contextmanager
def _damage_named(path: str | os.PathLike[str], record_format: RecordFormat) -> Iterator[None]:
    """Raises an InputError with the path for any error of array_record, TFDS or protobuf."""
    what, remedy = 'latents', 'encode'
    if record_format.name != DATASET:
        what, remedy = 'audio', 'prepare'
    try:
        yield
    except FileNotFoundError:
        raise InputError(f'{path} does not exist: check the path') from None
    except InputError:
        raise
    except Exception as error:
        reason = first_line(error)
        raise InputError(
            f'{path} is damaged or no shard of {what} ({reason}): {remedy} it again'
        ) from None


def _open_builder(folder: str | os.PathLike[str], kinds: Collection[str]) -> Any:
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(folder)
    except Exception as error:  # TFDS has no common class of errors
        raise InputError(
            f'{folder} is no dataset that TFDS can open ({first_line(error)})'
        ) from None
    if builder.info.name not in kinds:
        raise InputError(f'{folder} is a dataset {builder.info.name!r}, not of latents')
    return builder

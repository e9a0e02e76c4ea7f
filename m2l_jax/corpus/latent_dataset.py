"""A TFDS dataset of latents: what a record holds, and a shard's files read back.

Opened by plain TFDS, see `data.tfds`. A bfloat16 dataset needs TensorFlow, or
`import ml_dtypes` (JAX does it) before it is opened: only then does NumPy know the type.
"""

import itertools
import os
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes  # noqa: F401 -- after which NumPy, and so TFDS, knows 'bfloat16' by name
import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader

from m2l_jax.corpus.store import StoredLatents, check
from m2l_jax.data.tfds import SPLIT, RecordFormat, ShardWriter
from m2l_jax.interface.errors import InputError, first_line

NAME = 'm2l_latents'
_VERSION = '1.0.0'

# A record is a protocol buffer, which holds 2 GiB at most, the other fields too.
_MOST_BYTES = (1 << 31) - (1 << 20)


def record_format(width: int, dtype: str) -> RecordFormat:
    """What a record holds: the latents, or features, of one channel of a file.

    Args:
      width: numbers a frame: 64 for latents, 8192 for features of the released model.
      dtype: one of `store.STORAGE_DTYPES`.
    """
    tensor, raw = tfds.features.Tensor, tfds.features.Encoding.BYTES
    features = tfds.features.FeaturesDict(
        {
            # As bytes, which are read at once, a list of numbers one by one.
            'latents': tensor(shape=(None, width), dtype=np.dtype(dtype), encoding=raw),
            'kind': tfds.features.Text(),  # 'latents' or 'features'
            'source': tfds.features.Text(),  # the file's path below the input folder
            'sample_rate': np.int32,  # of the audio that was encoded, Hz
            'samples': np.int64,  # of that audio
            'channel': np.int32,
            'channels': np.int32,  # records of this source
            'channel_mode': tfds.features.Text(),  # 'each', 'mono' or 'mid_side'
            # The frame at which each separately encoded chunk begins.
            'chunk_offsets': tensor(shape=(None,), dtype=np.int64, encoding=raw),
            # As bytes, for TFDS keeps a plain number in single precision.
            'scale': tensor(shape=(), dtype=np.float64, encoding=raw),
            'model': tfds.features.Text(),
        }
    )
    return RecordFormat(NAME, _VERSION, features)


def describe(dtype: str) -> str:
    """The dataset's own description."""
    text = (
        "Latents of audio files, [frames, width], a record a channel. The model's own are "
        'latents * scale. The channels of a file are consecutive records.'
    )
    if dtype != 'bfloat16':
        return text
    return f'{text} Opened without TensorFlow it needs `import ml_dtypes` (JAX does it) before.'


def check_size(source: str, stored: StoredLatents) -> None:
    """Raises InputError if a channel of a file is too large for a record."""
    if stored.latents[0].nbytes > _MOST_BYTES:
        raise InputError(
            f'{source}: a channel has {stored.latents[0].nbytes / 1e9:.1f} GB of {stored.kind}, '
            'a record holds 2: store float16 or bfloat16, split the file or use --format=npy'
        )


def write_file(writer: ShardWriter, source: str, stored: StoredLatents) -> int:
    """Appends a record for each channel of a file that fits, and returns how many.

    Args:
      writer: of a shard with the features of `record_format`.
      source: the file's name, which no other file of the dataset has.
      stored: in the dtype of the format.

    Raises:
      OSError: if the shard cannot be written.
    """
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
            }
        )
    return len(stored.latents)


def read_format(folder: str | os.PathLike[str]) -> RecordFormat:
    """The format of the dataset in a folder.

    Raises:
      InputError: if there is none, or it is of something else.
    """
    feature = _open_builder(folder).info.features['latents']
    return record_format(feature.shape[1], np.dtype(feature.np_dtype).name)


def shard_lengths(folder: str | os.PathLike[str], split: str = SPLIT) -> dict[str, int]:
    """How many records each shard of the dataset in a folder has, by its path.

    Raises:
      InputError: as `read_format` does, or if there is no such split.
    """
    builder = _open_builder(folder)
    if split not in builder.info.splits:
        raise InputError(f'{folder} has no split {split!r}, only {SPLIT!r}')
    found = builder.info.splits[split]
    return dict(zip(map(os.fspath, found.filepaths), found.shard_lengths, strict=True))


def read_shard(
    path: str | os.PathLike[str], record_format: RecordFormat
) -> Iterator[tuple[str, StoredLatents]]:
    """Yields each file of a shard, its channels put together again, with its source.

    Raises:
      InputError: if the shard cannot be read, or lacks channels of a file.
    """
    try:
        records = _read_records(path, record_format)
        for source, channels in itertools.groupby(records, key=lambda record: record['source']):
            yield source.decode(), _join(list(channels))
    except FileNotFoundError:
        raise InputError(f'{path} does not exist: check the path') from None
    except Exception as error:  # whatever array_record, TFDS or protobuf make of damage
        raise InputError(
            f'{path} is damaged or no shard of latents ({first_line(error)}): encode it again'
        ) from None


def _open_builder(folder: str | os.PathLike[str]) -> Any:
    try:
        builder = tfds.builder_from_directory(folder)
    except Exception as error:  # TFDS has no common class of what may be wrong
        raise InputError(
            f'{folder} is no dataset that TFDS can open ({first_line(error)})'
        ) from None
    if builder.info.name != NAME:
        raise InputError(f'{folder} is a dataset {builder.info.name!r}, not of latents')
    return builder


def _read_records(
    path: str | os.PathLike[str], record_format: RecordFormat
) -> Iterator[Mapping[str, Any]]:
    os.stat(path)  # of a file that is missing array_record's own error does not say so
    reader = ArrayRecordReader(os.fspath(path))
    try:
        if not reader.ok():  # it raises nothing, and tells of no records
            raise ValueError('no array_record file, or one cut short')
        for number in range(reader.num_records()):
            yield record_format.features.deserialize_example_np(reader.read([number])[0])
    finally:
        reader.close()


def _join(records: list[Mapping[str, Any]]) -> StoredLatents:
    """The channels of a file as they were before `write_file`."""
    first = records[0]
    numbers = [record['channel'] for record in records]
    if numbers != list(range(first['channels'])):
        raise ValueError(f'{first["source"].decode()} has channels {numbers}')
    latents = np.stack([record['latents'].T for record in records])  # [channels, width, frames]
    return check(
        StoredLatents(
            latents,
            first['sample_rate'],
            first['samples'],
            float(first['scale']),
            first['model'].decode(),
            first['channel_mode'].decode(),
            tuple(first['chunk_offsets'].tolist()),
            first['kind'].decode(),
        )
    )

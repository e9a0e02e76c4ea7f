import dataclasses
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from m2l_jax.corpus import formats
from m2l_jax.corpus.store import StoredLatents
from m2l_jax.data.tfds import ShardWriter
from m2l_jax.interface.errors import InputError
from tests.data.test_tfds_audio import READ_WITHOUT_TENSORFLOW

SOURCES = ('a b/Bärenreiter 你好.flac', 'a b/\\xff\t.wav', 'c.wav')


def make_file(number, dtype='float32', width=3):
    """Two channels for an even number, else one."""
    channels, frames = 2 - number % 2, 4 + number
    values = np.random.default_rng(number).normal(size=(channels, width, frames))
    mode = 'mid_side' if channels == 2 else 'mono'
    return StoredLatents(
        values.astype(np.dtype(dtype)), 44_100, 3_000_000_000, 0.06, 'ab12', mode, (0, 2), 'latents'
    )


def write_dataset(folder, dtype='float32', shards=((0, 1), (), (2,))):
    """A shard for each tuple of files."""
    record_format = formats.latent_records(3, dtype)
    lengths = []
    for number, files in enumerate(shards):
        path = record_format.shard_path(folder, number, len(shards))
        with ShardWriter(path, record_format.features) as writer:
            written = [
                formats.write_records(writer, SOURCES[file], make_file(file, dtype))
                for file in files
            ]
        lengths.append(sum(written))
    record_format.write_metadata(folder, lengths, 1234, formats.describe(dtype))
    return record_format


@pytest.mark.parametrize('dtype', ['float32', 'float16', 'bfloat16'])
def test_plain_tfds_reads_what_was_written(tmp_path, dtype):
    write_dataset(tmp_path, dtype)
    builder = tfds.builder_from_directory(tmp_path)
    assert ('ml_dtypes' in builder.info.description) == (dtype == 'bfloat16')
    records = builder.as_data_source('train')
    assert [record['source'].decode() for record in records] == [
        SOURCES[i] for i in (0, 0, 1, 2, 2)
    ]
    for record, (file, channel) in zip(
        records, [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1)], strict=True
    ):
        stored = make_file(file, dtype)
        assert record['latents'].dtype == np.dtype(dtype)
        np.testing.assert_array_equal(record['latents'], stored.latents[channel].T)
        np.testing.assert_array_equal(record['chunk_offsets'], [0, 2])
        assert record['scale'] == 0.06  # in double precision
        assert record['samples'] == 3_000_000_000
        assert record['sample_rate'] == 44_100
        assert (record['channel'], record['channels']) == (channel, len(stored.latents))
        assert record['channel_mode'] == stored.channel_mode.encode()
        assert (record['kind'], record['model']) == (b'latents', b'ab12')


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_reading_needs_no_tensorflow(tmp_path, dtype):
    write_dataset(tmp_path, dtype)
    code, _ = READ_WITHOUT_TENSORFLOW.split('import tensorflow_datasets')
    code += (
        'import ml_dtypes, tensorflow_datasets as tfds\n'
        "record = tfds.builder_from_directory(sys.argv[1]).as_data_source('train')[3]\n"
        "print(record['latents'].dtype, record['latents'].astype(float).tolist())\n"
        "print([name for name in sys.modules if name in ('tensorflow', 'm2l_jax')])"
    )
    command = [sys.executable, '-c', code, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, cwd='/')
    expected = make_file(2, dtype).latents[0].T.astype(float).tolist()
    assert result.stdout == f'{dtype} {expected}\n[]\n', result.stderr


@pytest.mark.parametrize('dtype', ['float32', 'float16', 'bfloat16'])
def test_a_shards_files_are_put_together_again(tmp_path, dtype):
    written = write_dataset(tmp_path, dtype)
    record_format = formats.read_format(tmp_path)
    assert (record_format.name, record_format.version) == (written.name, written.version)
    found = [
        file
        for number in range(3)
        for file in formats.read_shard(record_format.shard_path(tmp_path, number, 3), record_format)
    ]
    assert [source for source, _ in found] == list(SOURCES)
    for number, (_, stored) in enumerate(found):
        expected = make_file(number, dtype)
        assert stored.latents.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(stored.latents, expected.latents)
        for field in dataclasses.fields(stored)[1:]:
            assert getattr(stored, field.name) == getattr(expected, field.name)


def test_damaged_shards_are_named(tmp_path):
    record_format = write_dataset(tmp_path, shards=((0, 1, 2),))
    path = record_format.shard_path(tmp_path, 0, 1)
    content = path.read_bytes()
    name = r'array_record-00000-of-00001 is damaged or no shard of latents'
    for damaged in (b'', b'text', content[:-1], content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=name):
            list(formats.read_shard(path, record_format))
    path.unlink()
    with pytest.raises(InputError, match=r'00000-of-00001 does not exist'):
        list(formats.read_shard(path, record_format))


def test_a_flipped_bit_is_never_read_as_latents(tmp_path):
    record_format = write_dataset(tmp_path, shards=((0, 1, 2),))
    path = record_format.shard_path(tmp_path, 0, 1)
    content = path.read_bytes()
    intact = read_all(path, record_format)
    used = np.flatnonzero(np.frombuffer(content, np.uint8))  # the file is filled up with zeros
    reasons = []
    for position in np.random.default_rng(0).choice(used, 100):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(position) % 8
        path.write_bytes(damaged)
        try:
            assert read_all(path, record_format) == intact
        except InputError as error:
            reasons.append(str(error))
    assert len(reasons) > 90
    assert all(os.fspath(path) in reason for reason in reasons)


def read_all(path, record_format):
    files = formats.read_shard(path, record_format)
    return [(source, stored.latents.tobytes(), stored.samples) for source, stored in files]


def test_a_lost_channel_is_told(tmp_path):
    record_format = formats.latent_records(3, 'float32')
    path = tmp_path / 'shard'

    class OnlyFirst(ShardWriter):
        def write(self, record):
            if not record['channel']:
                super().write(record)

    with OnlyFirst(path, record_format.features) as writer:
        formats.write_records(writer, 'a.wav', make_file(0))
    with pytest.raises(InputError, match=r'a\.wav has channels \[0\]'):
        list(formats.read_shard(path, record_format))


def test_what_no_record_can_hold_is_refused():
    huge = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1, 8192, 70_000), (0, 0, 0))
    stored = dataclasses.replace(make_file(1), latents=huge, kind='features')
    with pytest.raises(InputError, match=r'a\.wav: a channel has 2\.3 GB of features, a record'):
        formats.DatasetFormat.check(None, 'a.wav', stored)


def test_other_datasets_are_refused(tmp_path):
    with pytest.raises(InputError, match='is no dataset that TFDS can open'):
        formats.read_format(tmp_path)
    from tests.data.test_tfds_audio import write_dataset as write_audio

    write_audio(pathlib.Path(tmp_path), [1])
    with pytest.raises(InputError, match="is a dataset 'm2l_audio', not of latents"):
        formats.read_format(tmp_path)

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from m2l_jax.data.tfds import INFO, ShardWriter, segment_format
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import replaced_file

REPOSITORY = pathlib.Path(__file__).parents[2]
READ_WITHOUT_TENSORFLOW = """
import importlib.machinery, sys
Finder = importlib.machinery.PathFinder

class Without(Finder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == 'tensorflow' else super().find_spec(name, path, target)

sys.meta_path[:] = [Without if finder is Finder else finder for finder in sys.meta_path]
import tensorflow_datasets as tfds
records = tfds.builder_from_directory(sys.argv[1]).as_data_source('train')
print(len(records), records[1]['audio'][:5].tolist(), records[1]['offset'])
"""


def make_record(number):
    return {
        'audio': np.arange(-3, 500, dtype=np.int16) * number,
        'sample_rate': 44_100,
        'source': 'Bärenreiter/suite.flac',
        'offset': 3_000_000_000,
        'channel': 1,
        'channels': 2,
        'source_sample_rate': 96_000,
        'peak': np.float32(1.25),
        'rms': np.float32(0.1),
    }


def write_dataset(folder, lengths):
    for shard, length in enumerate(lengths):
        path = segment_format().shard_path(folder, shard, len(lengths))
        with ShardWriter(path, segment_format().features) as writer:
            for number in range(length):
                writer.write(make_record(10 * shard + number))
    segment_format().write_metadata(folder, lengths, 1234, 'for a test')


def test_plain_tfds_reads_what_was_written(tmp_path):
    write_dataset(tmp_path, [3, 0, 2])
    builder = tfds.builder_from_directory(tmp_path)
    assert (builder.info.full_name, builder.info.description) == ('m2l_audio/1.0.0', 'for a test')
    records = builder.as_data_source('train')
    assert len(records) == 5
    for record, number in zip(records, (0, 1, 2, 20, 21), strict=True):
        expected = {**make_record(number), 'source': 'Bärenreiter/suite.flac'.encode()}
        assert record.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(record[name], value)
        assert record['audio'].dtype == np.int16


def test_reading_needs_no_tensorflow(tmp_path):
    write_dataset(tmp_path, [2])
    command = [sys.executable, '-c', READ_WITHOUT_TENSORFLOW, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout == '2 [-3, -2, -1, 0, 1] 3000000000\n', result.stderr


def test_the_same_records_give_the_same_bytes(tmp_path):
    """In another process too, where hashes have another seed."""
    code = (
        'import sys; from tests.data.test_tfds_audio import write_dataset; '
        'write_dataset(sys.argv[1], [4])'
    )
    for name in ('one', 'two'):
        (tmp_path / name).mkdir()
        command = [sys.executable, '-c', code, str(tmp_path / name)]
        subprocess.run(command, check=True, cwd=REPOSITORY)
    names = sorted(path.name for path in (tmp_path / 'one').iterdir())
    assert names == [
        'dataset_info.json',
        'features.json',
        'm2l_audio-train.array_record-00000-of-00001',
    ]
    for name in names:
        assert (tmp_path / 'one' / name).read_bytes() == (tmp_path / 'two' / name).read_bytes()


def test_without_its_metadata_it_does_not_load(tmp_path):
    write_dataset(tmp_path, [1])
    (tmp_path / INFO).unlink()
    with pytest.raises(Exception, match=r'dataset_info\.json'):
        tfds.builder_from_directory(tmp_path)


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    with (
        pytest.raises(InputError, match='shard cannot be written'),
        replaced_file(tmp_path / 'shard') as partial,
        ShardWriter(partial / 'below', segment_format().features) as writer,
    ):
        writer.write(make_record(0))
    (tmp_path / 'file').touch()
    with pytest.raises(InputError, match=r'file/.*\.json cannot be written \('):
        segment_format().write_metadata(tmp_path / 'file', [1], 1, '')
    assert [path.name for path in tmp_path.iterdir()] == ['file']


def test_a_process_that_is_killed_leaves_no_part_of_the_metadata(tmp_path, monkeypatch):
    """While TFDS writes, in no way of ours, nothing of it is in the dataset's folder."""
    before = []

    def write(info, folder):
        original(info, folder)
        before.extend(tmp_path.iterdir())

    original = tfds.core.DatasetInfo.write_to_directory
    monkeypatch.setattr(tfds.core.DatasetInfo, 'write_to_directory', write)
    segment_format().write_metadata(tmp_path, [1], 1, '')
    assert before == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'dataset_info.json',
        'features.json',
    ]

import dataclasses
import hashlib

import numpy as np
import pytest

from m2l_jax.audio import files
from m2l_jax.corpus import formats
from m2l_jax.corpus.plan import Output, describe_output, digest_file
from m2l_jax.corpus.store import StoredLatents, write_latents, written_paths
from m2l_jax.corpus.verify import verify
from m2l_jax.data.tfds import INFO, ShardWriter
from tests.conftest import make_music
from tests.corpus.test_latent_dataset import make_file, write_dataset


def write_stored(folder, name, stored):
    """Writes latents and returns what is noted of the files."""
    write_latents(folder / name, stored)
    written = [path.relative_to(folder).as_posix() for path in written_paths(folder / name)]
    return [describe_output(folder, name, int(number == 0)) for number, name in enumerate(written)]


@pytest.fixture
def outputs(tmp_path):
    """Of every kind of file."""
    found = write_stored(tmp_path, 'deep er/ä.npz', make_file(0))
    found += write_stored(tmp_path, 'b.npy', make_file(1, 'bfloat16'))
    files.write(tmp_path / 'c.wav', make_music(0.2), 44_100)
    return [*found, describe_output(tmp_path, 'c.wav', 1)]


@pytest.fixture
def shards(tmp_path):
    """Of a dataset, the second without records."""
    record_format = write_dataset(tmp_path, 'float16')
    paths = [record_format.shard_path(tmp_path, number, 3) for number in range(3)]
    return [
        describe_output(tmp_path, path.name, records)
        for path, records in zip(paths, (3, 0, 2), strict=True)
    ]


def test_a_digest_is_of_the_content(tmp_path):
    (tmp_path / 'a').write_bytes(b'abc')
    digest = hashlib.sha256(b'abc').hexdigest()
    assert digest_file(tmp_path / 'a') == digest
    assert describe_output(tmp_path, 'a', 7) == Output('a', 3, digest, 7)


def test_what_is_intact_has_no_problems(tmp_path, outputs, shards):
    told = []
    assert verify(tmp_path, iter(outputs + shards), told.append) == []
    assert told == [output.bytes for output in outputs + shards]


def test_every_problem_is_found(tmp_path, outputs):
    npz, npy, record, wav = outputs
    (tmp_path / npz.name).unlink()
    content = bytearray((tmp_path / npy.name).read_bytes())
    content[-1] ^= 1
    (tmp_path / npy.name).write_bytes(content)
    (tmp_path / wav.name).write_bytes(b'')
    assert verify(tmp_path, outputs) == [
        ('deep er/ä.npz', 'is missing'),
        ('b.npy', 'was changed since it was written: its SHA-256 is another'),
        ('c.wav', f'has 0 bytes, {wav.bytes} were written'),
    ]
    (tmp_path / record.name).unlink()
    (tmp_path / record.name).mkdir()
    noted = dataclasses.replace(record, bytes=(tmp_path / record.name).stat().st_size)
    assert verify(tmp_path, [noted]) == [('b.npy.json', 'cannot be read (Is a directory)')]


def test_what_was_written_wrong_is_found(tmp_path, shards):
    """Though sizes and hashes are right."""
    nan = make_file(0).latents.copy()
    nan[1, 2, 3] = np.nan
    found = write_stored(tmp_path, 'nan.npz', dataclasses.replace(make_file(0), latents=nan))
    late = dataclasses.replace(make_file(0), chunk_offsets=(0, 4))
    found += write_stored(tmp_path, 'late.npz', late)
    (tmp_path / 'text.npz').write_text('text')
    (tmp_path / 'text.wav').write_text('text')
    found += [describe_output(tmp_path, name, 1) for name in ('text.npz', 'text.wav')]
    problems = dict(verify(tmp_path, [*found, *shards]))
    assert list(problems) == ['nan.npz', 'late.npz', 'text.npz', 'text.wav']
    assert problems['nan.npz'] == f'{tmp_path}/nan.npz holds NaN or infinity'
    assert problems['late.npz'].endswith('late.npz has 4 frames, and a chunk at 4')
    assert 'text.npz is damaged or holds no latents' in problems['text.npz']
    assert 'text.wav cannot be read as audio' in problems['text.wav']


def test_shards_are_counted_and_compared_with_the_dataset(tmp_path, shards):
    first, second, _ = shards
    wrong = dataclasses.replace(first, records=2)
    assert verify(tmp_path, [wrong, second]) == [
        (first.name, 'holds 3 records, 2 were written'),
        ('dataset_info.json', f'notes 3 records in {first.name}, not 2'),
    ]
    (tmp_path / INFO).unlink()
    assert verify(tmp_path, shards) == [
        ('dataset_info.json', 'is missing, and so no shard can be opened')
    ]
    (tmp_path / 'dataset_info.json').write_text('{')
    ((name, reason),) = verify(tmp_path, shards)
    assert name == 'dataset_info.json'
    assert 'is no dataset that TFDS can open' in reason


def test_a_value_that_is_not_finite_is_found_in_a_shard(tmp_path):
    record_format = write_dataset(tmp_path, shards=((1,),))
    path = record_format.shard_path(tmp_path, 0, 1)
    infinite = StoredLatents(np.full((1, 3, 2), np.inf, np.float32), 44_100, 9, 0.06, 'ab12')
    with ShardWriter(path, record_format.features) as writer:
        formats.write_records(writer, 'a b.wav', infinite)
    problems = verify(tmp_path, [describe_output(tmp_path, path.name, 1)])
    assert problems == [(path.name, f'{path}: a b.wav holds NaN or infinity')]

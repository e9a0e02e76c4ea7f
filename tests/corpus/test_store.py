import dataclasses
import json

import ml_dtypes
import numpy as np
import pytest

from m2l_jax.corpus.store import (
    StoredLatents,
    read_latents,
    to_storage,
    write_latents,
    written_paths,
)
from m2l_jax.interface.errors import InputError
from tests.conftest import largest_file

STORED = StoredLatents(np.arange(12, dtype=np.float32).reshape(2, 3, 2), 44_100, 9000, 0.06, 'ab12')


@pytest.mark.parametrize('suffix', ['.npz', '.npy'])
def test_what_is_written_is_read(tmp_path, suffix):
    path = tmp_path / 'deep' / f'a{suffix}'
    write_latents(path, STORED)
    stored = read_latents(path)
    np.testing.assert_array_equal(stored.latents, STORED.latents)
    for name in ('sample_rate', 'samples', 'scale', 'model'):
        assert getattr(stored, name) == getattr(STORED, name)
    assert not [file for file in path.parent.iterdir() if file.name.startswith('.')]


@pytest.mark.parametrize('suffix', ['.npz', '.npy'])
def test_broken_files_are_named(tmp_path, suffix):
    path = tmp_path / f'a{suffix}'
    with pytest.raises(InputError, match=rf'a\{suffix} does not exist'):
        read_latents(path)
    write_latents(path, STORED)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=rf'a\{suffix} is damaged or holds no latents'):
        read_latents(path)
    np.savez(tmp_path / 'b.npz', latents=np.zeros(3))
    with pytest.raises(InputError, match=r"b\.npz lacks 'sample_rate': it is not a file of lat"):
        read_latents(tmp_path / 'b.npz')


def test_a_missing_or_broken_record_is_named(tmp_path):
    write_latents(tmp_path / 'a.npy', STORED)
    record = tmp_path / 'a.npy.json'
    fields = json.loads(record.read_text())
    record.write_text(json.dumps({**fields, 'model': 1, 'scale': None})[:-5])
    with pytest.raises(InputError, match=r'a\.npy\.json is damaged'):
        read_latents(tmp_path / 'a.npy')
    record.unlink()
    with pytest.raises(InputError, match=r"a\.npy lacks 'sample_rate'"):
        read_latents(tmp_path / 'a.npy')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'scale': None}, "lacks 'scale'"),
        ({'scale': float('inf')}, 'scale is inf'),
        ({'model': 1}, 'model is 1'),
        ({'samples': 1.5}, r'samples is 1\.5'),
        ({'sample_rate': 0}, 'sample_rate is 0'),
        ({'channel_mode': 'left'}, "channel_mode is 'left'"),
        ({'kind': None}, 'kind is None'),
        ({'chunk_offsets': [0, 5, 5]}, r'chunk_offsets are \(0, 5, 5\)'),
        ({'chunk_offsets': [1]}, r'chunk_offsets are \(1,\)'),
    ],
)
def test_a_wrong_record_is_named(tmp_path, change, message):
    write_latents(tmp_path / 'a.npy', STORED)
    record = tmp_path / 'a.npy.json'
    record.write_text(json.dumps({**json.loads(record.read_text()), **change}))
    with pytest.raises(InputError, match=message):
        read_latents(tmp_path / 'a.npy')


def test_a_record_does_not_take_the_place_of_a_users_file(tmp_path):
    (tmp_path / 'a.json').write_text('mine')
    write_latents(tmp_path / 'a.npy', STORED)
    assert (tmp_path / 'a.json').read_text() == 'mine'


def test_pickled_arrays_are_not_run(tmp_path):
    np.save(tmp_path / 'a.npy', np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r'a\.npy is damaged or holds no latents'):
        read_latents(tmp_path / 'a.npy')


@pytest.mark.parametrize('dtype', ['float32', 'float16', 'bfloat16'])
@pytest.mark.parametrize('suffix', ['.npz', '.npy'])
def test_every_dtype_and_field_comes_back(tmp_path, suffix, dtype):
    values = np.arange(12).reshape(2, 3, 2) / 7
    written = dataclasses.replace(
        STORED,
        latents=to_storage(values, dtype, 'a.wav'),
        channel_mode='mid_side',
        chunk_offsets=(0, 640, 1280),
        kind='features',
    )
    path = tmp_path / f'ein Stück, 你好{suffix}'
    write_latents(path, written)
    stored = read_latents(path)
    assert stored.latents.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(stored.latents, values.astype(np.dtype(dtype)))
    for field in dataclasses.fields(stored):
        if field.name != 'latents':
            assert getattr(stored, field.name) == getattr(written, field.name)
    assert set(tmp_path.iterdir()) == set(written_paths(path))
    first = [file.read_bytes() for file in written_paths(path)]
    write_latents(path, written)
    assert [file.read_bytes() for file in written_paths(path)] == first


def test_a_stranger_reads_bfloat16(tmp_path):
    stored = dataclasses.replace(STORED, latents=STORED.latents.astype(ml_dtypes.bfloat16))
    write_latents(tmp_path / 'a.npz', stored)
    content = np.load(tmp_path / 'a.npz')
    assert content['dtype'] == 'bfloat16'
    np.testing.assert_array_equal(content['latents'].view(ml_dtypes.bfloat16), STORED.latents)


def test_files_written_before_are_read(tmp_path):
    np.savez(
        tmp_path / 'a.npz',
        latents=STORED.latents,
        sample_rate=44_100,
        samples=9,
        scale=0.1,
        model='m',
    )
    stored = read_latents(tmp_path / 'a.npz')
    assert (stored.channel_mode, stored.chunk_offsets, stored.kind) == ('each', (0,), 'latents')
    assert (stored.samples, stored.scale, stored.model) == (9, 0.1, 'm')


def test_what_a_dtype_cannot_hold_is_refused():
    features = np.array([1.0, -70_000.0], np.float32)
    message = (
        r'a\.wav encodes to values of up to 7e\+04, too large for float16 \(6\.55e\+04 at most\)'
    )
    with pytest.raises(InputError, match=message):
        to_storage(features, 'float16', 'a.wav')
    assert to_storage(features, 'bfloat16', 'a.wav').tolist() == [1.0, -70_144.0]
    for value in (np.nan, np.inf):
        with pytest.raises(InputError, match=r'a\.wav encodes to NaN or infinity'):
            to_storage(np.array([value], np.float32), 'float32', 'a.wav')


@pytest.mark.parametrize('suffix', ['.npz', '.npy'])
@pytest.mark.parametrize('missing', [1, 1000])
def test_a_disk_that_is_full_before_the_last_byte_is_told(tmp_path, suffix, missing):
    """NumPy itself overlooks what is not written as an array's file is closed."""
    path = tmp_path / f'a{suffix}'
    stored = dataclasses.replace(STORED, latents=np.ones((2, 64, 50), np.float32))
    write_latents(path, stored)
    size = path.stat().st_size
    path.unlink()
    with (
        largest_file(size - missing),
        pytest.raises(InputError, match=rf'a\{suffix} cannot be written \(File too large\)'),
    ):
        write_latents(path, stored)
    assert not path.exists()

import json

import numpy as np
import pytest

from m2l_jax.corpus.store import StoredLatents, read_latents, write_latents
from m2l_jax.interface.errors import InputError

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
    np.savez(tmp_path / 'b.npz', other=np.zeros(3))
    with pytest.raises(InputError, match=r"b\.npz lacks 'latents': it is not a file of latents"):
        read_latents(tmp_path / 'b.npz')


def test_a_missing_or_broken_record_is_named(tmp_path):
    write_latents(tmp_path / 'a.npy', STORED)
    record = tmp_path / 'a.npy.json'
    fields = json.loads(record.read_text())
    record.write_text(json.dumps({**fields, 'model': 1, 'scale': None})[:-5])
    with pytest.raises(InputError, match=r'a\.npy\.json is damaged'):
        read_latents(tmp_path / 'a.npy')
    record.unlink()
    with pytest.raises(InputError, match=r'a\.npy\.json does not exist'):
        read_latents(tmp_path / 'a.npy')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'scale': None}, 'scale is None'),
        ({'samples': 1.5}, r'samples is 1\.5'),
        ({'sample_rate': 0}, 'sample_rate is 0'),
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

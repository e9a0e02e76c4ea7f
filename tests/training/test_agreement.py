import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from m2l_jax.interface.errors import InputError
from m2l_jax.training import mesh as meshes


def test_a_single_process_agrees_with_itself():
    assert meshes.gather_json({'text': 'a', 'numbers': [1, 2]}) == [
        {'text': 'a', 'numbers': [1, 2]}
    ]


@pytest.fixture
def as_process_1_of_2(monkeypatch):
    """Process 0 has written its file, wherever that is, and sees it."""
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    monkeypatch.setattr(jax, 'process_index', lambda: 1)
    first = iter(['.token', True])
    monkeypatch.setattr(meshes, 'gather_json', lambda value: [next(first), value])
    monkeypatch.setattr(meshes, '_DELAY_SECONDS', 0.2)
    monkeypatch.setattr(multihost_utils, 'sync_global_devices', lambda name: None)


def test_a_folder_that_is_shared_is_taken(as_process_1_of_2, tmp_path):
    (tmp_path / '.token').touch()
    meshes.check_shared(tmp_path)


def test_a_folder_of_each_hosts_own_is_refused(as_process_1_of_2, tmp_path):
    with pytest.raises(InputError, match=r'^process 1 does not see .*--workdir must be one folder'):
        meshes.check_shared(tmp_path)


@pytest.mark.parametrize('index', [0, 1])
def test_process_0_reads_parameters_for_all(index, monkeypatch):
    params = {'layer': {'kernel': np.arange(6.0).reshape(2, 3)}}
    found = params, ('a', 'b')
    assert meshes.read_once(lambda: found, params) is found  # a single process
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    monkeypatch.setattr(jax, 'process_index', lambda: index)
    monkeypatch.setattr(multihost_utils, 'broadcast_one_to_all', lambda tree: tree)
    told = ['', True, ['a', 'b']]  # by process 0: no error, parameters, the note
    monkeypatch.setattr(meshes, 'gather_json', lambda value: [told, value])
    sent, note = meshes.read_once(lambda: found if index == 0 else pytest.fail('read'), params)
    assert note == ['a', 'b']
    np.testing.assert_array_equal(sent['layer']['kernel'], (1 - index) * params['layer']['kernel'])
    told[:] = '', False, None
    assert meshes.read_once(lambda: None, params) is None


def test_an_error_of_process_0_is_every_processs(monkeypatch):
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    monkeypatch.setattr(meshes, 'gather_json', lambda value: [value, value])

    def fail():
        raise InputError('config.init_from=x: x does not exist')

    with pytest.raises(InputError, match=r'^config\.init_from=x: x does not exist'):
        meshes.read_once(fail, {})

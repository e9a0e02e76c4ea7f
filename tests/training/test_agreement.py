import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from m2l_jax.interface.errors import InputError
from m2l_jax.training import agreement


@pytest.fixture
def as_process_1_of_2(monkeypatch):
    """Process 0 has written its file, wherever that is, and sees it."""
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    monkeypatch.setattr(jax, 'process_index', lambda: 1)
    monkeypatch.setattr(agreement, '_gather', lambda text: ['.token', text])
    monkeypatch.setattr(agreement, '_DELAY_SECONDS', 0.2)
    monkeypatch.setattr(multihost_utils, 'sync_global_devices', lambda name: None)
    monkeypatch.setattr(
        multihost_utils, 'process_allgather', lambda sees: np.array([True, bool(sees)])
    )


def test_a_folder_that_is_shared_is_taken(as_process_1_of_2, tmp_path):
    (tmp_path / '.token').touch()
    agreement.check_shared(tmp_path)


def test_a_folder_of_each_hosts_own_is_refused(as_process_1_of_2, tmp_path):
    with pytest.raises(InputError, match=r'^process 1 does not see .*--workdir must be one folder'):
        agreement.check_shared(tmp_path)


def test_parameters_that_are_not_those_of_process_0_are_refused(monkeypatch):
    params = {'layer': {'kernel': np.arange(6.0).reshape(2, 3)}}
    assert agreement.read_alike(lambda: params) is params  # a single process
    told = []
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    monkeypatch.setattr(agreement, '_gather', lambda text: told.append(text) or [told[0], text])
    assert agreement.read_alike(lambda: params) is params
    other = {'layer': {'kernel': params['layer']['kernel'].T.copy().T + 1}}
    with pytest.raises(InputError, match=r'^process 1 reads other parameters'):
        agreement.read_alike(lambda: other)

    def fail():
        raise InputError('config.init_from=x: x does not exist')

    with pytest.raises(InputError, match=r'^process 1: .* does not exist'):
        agreement.read_alike(fail)

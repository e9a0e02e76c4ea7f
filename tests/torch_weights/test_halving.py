import logging

import numpy as np
import pytest

from m2l_jax.interface.errors import InputError
from m2l_jax.torch_weights.conversion import load_torch_model, save_torch_model, to_float16
from tests.torch_weights.test_conversion import UNEVEN, random_params


def test_how_far_rounding_moves_is_told(caplog):
    # Of 1 + 2^-12 and 1, float16 has the second alone; 0 and 0.5 it has as they are.
    tensors = {'a': np.array([1 + 2**-12, 0], np.float32), 'b': np.full(4, 0.5, np.float32)}
    with caplog.at_level(logging.INFO):
        halved = to_float16(tensors, 'keep float32')
    np.testing.assert_array_equal(halved['a'], np.array([1, 0], np.float16))
    np.testing.assert_array_equal(halved['b'], tensors['b'])
    # 2^-12 over √2.
    assert 'by 1.7e-04 of the norm of all numbers, each by 2.4e-04 at most' in caplog.text


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        (7e4, 'w holds 7e\\+04, which float16 cannot: keep float32'),
        (np.nan, 'w holds numbers that are not finite: its training diverged'),
        (
            1e-7,
            'the numbers are too small for float16, which moves them by 1.9e-01 of their norm: '
            'keep float32',
        ),
    ],
)
def test_what_float16_cannot_hold_is_refused(value, message):
    tensors = {'zeros': np.zeros(2, np.float32), 'w': np.array([value], np.float32)}
    with pytest.raises(InputError, match=message):
        to_float16(tensors, 'keep float32')


def test_a_file_of_float16_is_half_as_large_and_read_as_float32(tmp_path):
    params = random_params(UNEVEN)
    exact, halved = tmp_path / 'exact.safetensors', tmp_path / 'halved.safetensors'
    save_torch_model(exact, UNEVEN, params)
    save_torch_model(halved, UNEVEN, params, storage='float16')
    assert 0.5 < halved.stat().st_size / exact.stat().st_size < 0.6
    model, loaded = load_torch_model(halved)
    assert model.config == UNEVEN
    gain = params['encoder']['gain']
    np.testing.assert_array_equal(
        loaded['encoder']['gain'], gain.astype(np.float16).astype(np.float32)
    )


def test_files_are_as_open_as_any(tmp_path):
    (tmp_path / 'any').touch()
    save_torch_model(tmp_path / 'model.safetensors', UNEVEN, random_params(UNEVEN))
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_file_that_would_be_too_large_is_not_written(tmp_path):
    path = tmp_path / 'model.safetensors'
    with pytest.raises(InputError, match=r'model\.safetensors would have 1\.1 MB, more than 0\.1'):
        save_torch_model(path, UNEVEN, random_params(UNEVEN), most_bytes=100_000)
    assert not list(tmp_path.iterdir())

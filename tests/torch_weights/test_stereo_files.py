import dataclasses

import jax
import numpy as np
import pytest
import safetensors.numpy

from benchmarks import small_model
from m2l_jax.evaluation.parity import compare_file
from m2l_jax.interface.errors import InputError
from m2l_jax.torch_weights.conversion import load_torch_model, save_torch_model

CONFIG = dataclasses.replace(small_model.CONFIG, channels=4, stereo='mid_side')


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp('stereo') / 'model.safetensors'
    params = small_model.random_params(CONFIG)
    save_torch_model(path, CONFIG, params)
    return path, params


def test_a_stereo_model_is_saved_and_loaded_with_its_record(saved):
    path, params = saved
    model, loaded = load_torch_model(path)
    assert model.config == CONFIG
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_tensors_without_a_record_are_of_left_and_right(saved, tmp_path, caplog):
    path, params = saved
    bare = tmp_path / 'bare.safetensors'
    safetensors.numpy.save_file(safetensors.numpy.load_file(path), bare)
    model, loaded = load_torch_model(bare, attention_heads=2)
    assert 'bare.safetensors: its four planes are taken for left and right' in caplog.text
    assert (model.config.channels, model.config.stereo) == (4, 'left_right')
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_stereo_has_no_reference_to_be_compared_with(saved):
    with pytest.raises(InputError, match=r'model\.safetensors is a stereo model: the PyTorch pack'):
        compare_file(str(saved[0]), 'song.flac', 1.0, 'float32')

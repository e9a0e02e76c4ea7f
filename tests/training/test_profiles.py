import shutil

import jax
import numpy as np
import pytest

from m2l_jax.checkpoint.averages import reconstruct_average
from m2l_jax.codec.weights import convert, open_weights
from m2l_jax.interface.errors import InputError
from m2l_jax.training.loop import train_and_evaluate
from m2l_jax.training.state import profiles_of
from tests.small_training import make_config
from tests.training.runs import assert_identical


def test_averages_are_kept_alike_when_training_goes_on(corpus, whole, tmp_path):
    config, run = make_config(corpus), tmp_path / 'run'
    with config.unlocked():
        config.optimizer.ema_profiles = (0.1, 0.2)
    state = train_and_evaluate(config, run)
    files = {path.name: path.read_bytes() for path in (run / 'averages').iterdir()}
    assert set(files) == {'3.safetensors', '6.safetensors'}
    # The parameters are those of a training that keeps none.
    assert_identical(state.params, whole.state.params)
    assert not (whole.workdir / 'averages').exists()
    profiles = profiles_of(state)
    assert int(profiles.count) == 6
    one, other = jax.tree.map(np.asarray, profiles.averages)
    assert_identical(reconstruct_average(run, 6, 0.2), other)

    # As a kill after step 5 leaves it, had a longer interval been written then.
    shutil.rmtree(run / 'checkpoints' / '6')
    (run / 'averages' / '6.safetensors').rename(run / 'averages' / '5.safetensors')
    assert_identical(train_and_evaluate(config, run), state)
    assert {path.name: path.read_bytes() for path in (run / 'averages').iterdir()} == files

    written = tmp_path / 'model.safetensors'
    convert(str(run), written, sigma_rel=0.1)
    model, params = open_weights(written)
    assert model.config.latent_channels == 4
    assert_identical(params, one)

    with config.unlocked():
        config.optimizer.ema_profiles = (0.1,)
    with pytest.raises(InputError, match=r'begin with the first step, not of \(0\.1,\): keep'):
        train_and_evaluate(config, run)


def test_models_without_averages_have_one_alone(whole, tmp_path):
    with pytest.raises(InputError, match=r'sigma_rel=0\.1 needs the averages .* has none: train'):
        convert(str(whole.workdir), tmp_path / 'model.safetensors', sigma_rel=0.1)
    assert not list(tmp_path.iterdir())

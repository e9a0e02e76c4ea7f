"""Runs that start from another model's parameters."""

import logging
import shutil

import jax
import pytest

from m2l_jax.checkpoint.store import load_model
from m2l_jax.codec import weights
from m2l_jax.interface.errors import InputError
from m2l_jax.torch_weights.conversion import save_torch_model
from m2l_jax.training.loop import train_and_evaluate
from tests.small_training import make_config
from tests.training.runs import assert_identical, first_state, killed_after


@pytest.fixture
def config(corpus):
    return make_config(corpus).unlock()


@pytest.fixture
def models(whole, tmp_path, monkeypatch):
    """The trained model in each form that it can be kept in."""
    model, params = load_model(whole.workdir)
    path = tmp_path / 'small.safetensors'
    save_torch_model(path, model.config, params)
    monkeypatch.setattr(weights, '_FOLDER', tmp_path)
    return [str(whole.workdir), str(path), 'small']


@pytest.mark.parametrize('shard_optimizer', [False, True])
def test_a_fresh_run_starts_from_another_models_parameters(
    config, whole, models, tmp_path, monkeypatch, shard_optimizer
):
    config.train.shard_optimizer = shard_optimizer
    fresh = first_state(config, tmp_path / 'fresh', monkeypatch)
    for number, config.init_from in enumerate(models):
        state = first_state(config, tmp_path / f'run{number}', monkeypatch)
        assert_identical(state.params, whole.state.ema_params)
        assert_identical(state.ema_params, whole.state.ema_params)
        assert_identical(state.opt_state, fresh.opt_state)
        assert (int(state.step), int(state.skipped)) == (0, 0)
        assert shardings(state) == shardings(fresh)


def test_a_discrete_run_starts_from_a_continuous_model(
    config, whole, models, tmp_path, monkeypatch
):
    config.model.bottleneck, config.model.levels = 'fsq', 5
    config.init_from = models[1]
    state = first_state(config, tmp_path / 'run', monkeypatch)
    assert_identical(state.params, whole.state.ema_params)


def shardings(state):
    return [leaf.sharding for leaf in jax.tree.leaves(state)]


def test_what_started_from_another_model_resumes_without_it(config, models, tmp_path, caplog):
    config.init_from = str(shutil.copy(models[1], tmp_path / 'start.safetensors'))
    whole = train_and_evaluate(config, tmp_path / 'whole')
    with killed_after(5):
        train_and_evaluate(config, tmp_path / 'parts')
    (tmp_path / 'start.safetensors').unlink()
    with caplog.at_level(logging.WARNING):
        resumed = train_and_evaluate(config, tmp_path / 'parts')
    assert_identical(resumed, whole)
    assert 'init_from' not in caplog.text
    config.init_from = ''
    train_and_evaluate(config, tmp_path / 'parts')
    assert "resuming with another config.init_from: '" in caplog.text


def test_a_model_that_no_run_can_start_from_is_told(config, models, tmp_path):
    for name, message in {
        'none.safetensors': r'init_from=none\.safetensors: none\.safetensors does not exist',
        str(tmp_path): f'config.init_from={tmp_path}: {tmp_path} holds no checkpoints',
    }.items():
        config.init_from = name
        with pytest.raises(InputError, match=message):
            train_and_evaluate(config, tmp_path / 'run')
    config.model.base_channels = 8
    message = r'init_from=small is another model \(config\.model\.base_channels: 4 -> 8\): give'
    for config.init_from in models:
        with pytest.raises(InputError, match=message.replace('small', config.init_from)):
            train_and_evaluate(config, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()

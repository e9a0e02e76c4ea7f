"""Training with finite scalar quantisation: which rows are rounded, and what is logged of it."""

import dataclasses
import functools
import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from m2l_jax.audio.spectrogram import to_spectrogram
from m2l_jax.configs import default, discrete, small
from m2l_jax.evaluation.noise_bins import token_figures
from m2l_jax.interface.devices import compute_once
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.settings import build
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.model.bottleneck import draw_rounded, from_tokens, to_tokens
from m2l_jax.training.config import TrainingConfig
from m2l_jax.training.curves import read_curves
from m2l_jax.training.loop import train_and_evaluate
from m2l_jax.training.monitor import Monitor
from m2l_jax.training.state import create_state, param_shapes, to_trees
from m2l_jax.training.step import compute_loss, draw, step_key
from tests.conftest import make_music
from tests.model.test_layers import perturbed
from tests.small_training import make_config
from tests.training.test_step import CONFIG, CONSISTENCY, run_step

MODEL = Music2Latent(dataclasses.replace(CONFIG, bottleneck='fsq', levels=5))
DROPOUT = dataclasses.replace(CONSISTENCY, unquantised=0.5)
SEED, STEP = 7, 3  # of `run_step`, and of the state


@pytest.fixture(scope='module')
def state():
    make = lambda: create_state(MODEL, optax.sgd(1.0), jax.random.key(0))  # noqa: E731
    state = to_trees(compute_once(make), param_shapes(MODEL))
    params = perturbed(state.params, 0.3)
    return state.replace(params=params, ema_params=params, step=jnp.asarray(STEP))


@pytest.fixture(scope='module')
def waveforms():
    samples = MODEL.config.spectrogram.samples(8)
    return make_music(1, channels=4)[:, 4000 : 4000 + samples]


def test_the_loss_is_that_of_the_rounded_rows(state, waveforms):
    """Two devices, two rows each, one by one; a continuous model gets rows rounded by NumPy."""
    _, metrics = run_step(MODEL, state, waveforms, 2, accumulate=2, consistency=DROPOUT)
    key, rows = step_key(SEED, STEP), jnp.arange(4)
    rounded = np.asarray(draw_rounded(key, rows, 0.5))
    assert set(rounded) == {True, False}
    spectrogram = to_spectrogram(jnp.asarray(waveforms), MODEL.config.spectrogram)
    draws = draw(key, rows, spectrogram.shape[1:], MODEL, CONSISTENCY.density)
    latents = jax.jit(functools.partial(MODEL.apply, method='encode'))(
        {'params': state.params}, spectrogram
    )
    given = np.where(rounded[:, None, None], from_tokens(to_tokens(latents, 5), 5), latents)

    class Given(Music2Latent):
        def encode(self, spectrogram, lengths=None):
            return jnp.asarray(given)

    delta = 10 ** -(1 + 2 * STEP / 10)
    losses, *_ = jax.jit(
        lambda params: compute_loss(params, Given(CONFIG), spectrogram, draws, delta, 0.00054)
    )(state.params)
    np.testing.assert_allclose(metrics['loss'], np.mean(losses), rtol=1e-4)
    # The latents' own metrics are of those before rounding.
    np.testing.assert_allclose(metrics['latent_std'], np.std(latents), rtol=1e-3)
    tokens = to_tokens(latents, 5)
    expected = [[np.mean(tokens[..., c] == token) for token in range(5)] for c in range(8)]
    np.testing.assert_allclose(metrics['token_histogram'], expected, atol=1e-6)


def test_use_and_entropy_of_known_histograms():
    even, halves = np.full(8, 1 / 8), np.array([0.5, 0.5] + 6 * [0.0])
    one = np.eye(8)[2]
    assert token_figures(np.array([even])) == {'code_use': 1.0, 'code_entropy': 3.0}
    assert token_figures(np.array([one])) == {'code_use': 0.125, 'code_entropy': 0.0}
    figures = token_figures(np.array([even, halves, one]))
    assert figures['code_use'] == pytest.approx((1 + 1 / 4 + 1 / 8) / 3)
    assert figures['code_entropy'] == pytest.approx((3 + 1 + 0) / 3)


def test_the_log_counts_tokens_since_its_last_row(tmp_path):
    monitor = Monitor(tmp_path, 0, 4, 2, 1.0)
    for step, token in ((1, 0), (2, 1), (3, 2), (4, 2)):
        histogram = jnp.eye(4)[jnp.array([token, token])]  # of two channels
        monitor.after_step(step, {'loss': jnp.float32(1), 'token_histogram': histogram})
    monitor.close()
    curves = read_curves(tmp_path)
    assert curves['code_use'] == {2: 0.5, 4: 0.25}
    assert curves['code_entropy'] == {2: 1.0, 4: 0.0}
    assert 'token_histogram' not in curves


def test_saturated_latents_are_warned_of_rarely(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    monitor = Monitor(tmp_path, 0, 200, 10, 1.0)
    for step in range(1, 201):
        saturated = 0.3 if step > 15 else 0.19
        metrics = {'loss': np.float32(1), 'latents_saturated': np.float32(saturated)}
        monitor.after_step(step, metrics)
    monitor.close()
    warnings = [message for message in caplog.messages if 'stuck' in message]
    assert [message.split(':')[0] for message in warnings] == [
        f'step {step}/200' for step in (20, 40, 80, 160)
    ]
    assert '30 % of the latents are stuck at -1 or 1' in warnings[0]
    assert 'lower config.optimizer.learning_rate' in warnings[0]


def test_a_discrete_model_trains_and_both_its_sides_are_evaluated(music, tmp_path):
    config = make_config(music)
    with config.unlocked():
        config.model.update(bottleneck='fsq', levels=7)
        config.consistency.unquantised = 0.75
        config.evaluation.update(path=str(music), every=6, clips=1, seconds=1.0, media_clips=0)
    train_and_evaluate(config, tmp_path)
    curves = read_curves(tmp_path)
    assert list(curves['code_use']) == [2, 4, 6]
    assert list(curves['evaluation/code_use']) == [0, 6]
    for name in ('code_use', 'evaluation/code_use'):
        assert all(1 / 7 <= value <= 1 for value in curves[name].values())
    for name in ('code_entropy', 'evaluation/code_entropy'):
        assert all(0 <= value <= np.log2(7) for value in curves[name].values())
    for name in ('si_sdr', 'lsd', 'mr_stft', 'mel'):
        both = curves[f'evaluation/{name}'][6], curves[f'evaluation/tokens_{name}'][6]
        assert np.all(np.isfinite(both))
        assert both[0] != both[1]
    (saved,) = (tmp_path / 'checkpoints' / '6').rglob('config/metadata')
    model = json.loads(saved.read_text())['model']
    assert (model['bottleneck'], model['levels']) == ('fsq', 7)


def test_the_config_is_the_short_recipe_with_quantisation():
    config, recipe = discrete.get_config('20000'), small.get_config('20000')
    for each in (config, recipe):
        each.data.path = 'music'
    settings, plain = (build(TrainingConfig, each) for each in (config, recipe))
    assert settings.model == dataclasses.replace(plain.model, bottleneck='fsq', levels=11)
    assert settings.consistency.unquantised == 0.75
    changed = dataclasses.replace(settings.consistency, unquantised=0.0)
    assert dataclasses.replace(settings, model=plain.model, consistency=changed) == plain
    bits = settings.model.latent_channels * np.log2(settings.model.levels)
    assert bits * 44_100 / settings.model.samples_per_latent == pytest.approx(2384, abs=1)


@pytest.mark.parametrize(
    ('share', 'message'),
    [
        (1.5, r'config\.consistency\.unquantised=1\.5 must be from 0 to 1'),
        (0.5, r"config\.consistency\.unquantised=0\.5 needs config\.model\.bottleneck='fsq'"),
    ],
)
def test_a_wrong_share_is_refused(share, message):
    config = default.get_config()
    config.data.path, config.consistency.unquantised = 'music', share
    with pytest.raises(InputError, match=message):
        build(TrainingConfig, config)

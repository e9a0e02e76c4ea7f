import functools

import jax
import numpy as np
import pytest

from m2l_jax.audio.spectrogram import to_spectrogram
from m2l_jax.consistency.keys import random_key
from m2l_jax.consistency.loss import add_noise
from m2l_jax.consistency.noise import NoiseLevels
from m2l_jax.evaluation.noise_bins import BINS, bin_indices, make_measure, name_figures
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.model.unet import preconditioning
from tests.conftest import make_music

HUBER_SCALE, DELTA = 0.00054, 0.01


@pytest.fixture(scope='module')
def model(tiny_config):
    return Music2Latent(tiny_config)


@pytest.fixture(scope='module')
def params(tiny_params):
    return tiny_params


@pytest.fixture(scope='module')
def crops(model):
    samples = model.config.spectrogram.samples(8)
    waveforms = make_music(1, channels=2)[:, : 2 * samples].reshape(4, samples)
    return to_spectrogram(waveforms, model.config.spectrogram)


@pytest.fixture(scope='module')
def measure(model):
    return make_measure(model, HUBER_SCALE, DELTA)


def test_an_untrained_model_has_the_figures_of_its_skip_connection(model, params, crops, measure):
    """Its last layer is 0, so that f(x_σ) = c_skip·(x + σz), whose moments are known."""
    figures = measure(params, crops)
    losses, errors = figures.loss, figures.error
    levels = model.config.noise
    sigma = levels.sigma(bin_indices())
    teacher_sigma = levels.sigma(bin_indices() - DELTA)
    skip, teacher_skip = (preconditioning(s, levels)[0] for s in (sigma, teacher_sigma))
    power = np.mean(crops**2)
    expected = np.sqrt((skip - 1) ** 2 * power + (skip * sigma) ** 2)
    np.testing.assert_allclose(errors, expected, rtol=0.01)

    elements = crops[0].size
    c = HUBER_SCALE * elements**0.5
    squares = elements * (
        (skip - teacher_skip) ** 2 * np.mean(crops**2, axis=(1, 2, 3))[:, None]
        + (skip * sigma - teacher_skip * teacher_sigma) ** 2
    )  # [B, BINS]
    expected = np.mean((np.sqrt(squares + c**2) - c) / (sigma - teacher_sigma), axis=0)
    np.testing.assert_allclose(losses, expected, rtol=0.02)


def test_any_model_leaves_alone_what_has_hardly_any_noise(params, crops, measure):
    random = np.random.default_rng(0)
    other = jax.tree.map(
        lambda leaf: leaf + 0.05 * random.standard_normal(leaf.shape, np.float32), params
    )
    before = measure(params, crops).error
    figures = measure(other, crops)
    losses, errors = figures.loss, figures.error
    assert errors[0] < 0.02 < 0.1 < min(errors[3:])
    assert np.all(np.abs(errors[1:] - before[1:]) > 1e-4)
    assert losses.shape == errors.shape == (BINS,)
    # Compiled once for all parameters and levels.
    assert [program._cache_size() for program in measure.programs] == [1, 1]


def test_a_teacher_at_the_lowest_level_gives_the_clean_crop(model, params, crops):
    """There, with Δ = 1, the loss is the error: both are the distance from x."""
    figures = make_measure(model, 1e-9, delta=1.0)(params, crops)
    losses, errors = figures.loss, figures.error
    levels = model.config.noise
    sigma = levels.sigma(bin_indices())
    norms = errors * crops[0].size ** 0.5  # with c = 0 the distance is the norm
    np.testing.assert_allclose(losses[3:], (norms / (sigma - levels.sigma_min))[3:], rtol=0.1)


def test_errors_with_other_latents_are_those_of_a_denoiser_given_them(model, params, crops):
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: leaf + 0.3 * random.standard_normal(leaf.shape, np.float32), params
    )
    for name, layer in params['unet'].items():
        if 'cross' in name:  # through which the latents come: they shall not go unnoticed
            layer['kernel'] = 30 * layer['kernel']
    figures = make_measure(model, HUBER_SCALE, DELTA)(params, crops)
    number = 5
    sigma = np.full(len(crops), model.config.noise.sigma(bin_indices()[number]))
    noise = np.stack(
        [
            jax.random.normal(jax.random.fold_in(key, number), crops.shape[1:])
            for key in jax.random.split(random_key(0), len(crops))
        ]
    )
    noisy = add_noise(crops, noise, sigma)
    apply = jax.jit(functools.partial(model.apply, {'params': params}), static_argnames='method')
    latents = np.asarray(apply(crops, method='encode'))

    def measured(latents):
        pyramid = apply(latents, method='pyramid')
        output = apply(noisy, sigma, pyramid, method='denoise')
        magnitudes = np.linalg.norm(output, axis=-1) - np.linalg.norm(crops, axis=-1)
        return np.sqrt(np.mean((output - crops) ** 2)), np.sqrt(np.mean(magnitudes**2))

    own, other = measured(latents), measured(latents[[2, 3, 0, 1]])
    mean = measured(np.broadcast_to(latents.mean((0, 1)), latents.shape))
    assert abs(own[0] / other[0] - 1) > 1e-4
    np.testing.assert_allclose((figures.error[number], figures.magnitude_error[number]), own, 1e-5)
    np.testing.assert_allclose(
        (figures.error_other[number], figures.magnitude_error_other[number]), other, 1e-5
    )
    np.testing.assert_allclose(figures.error_mean[number], mean[0], 1e-5)
    np.testing.assert_allclose(figures.latent_std, np.std(latents), 1e-5)
    assert figures.latents_saturated == np.mean(np.abs(latents) > 0.99)


def test_the_same_crop_again_and_again_has_no_other_latents(model, params, crops, measure):
    figures = measure(params, np.stack([crops[0]] * 4))
    assert np.all(np.isnan([figures.error_other, figures.magnitude_error_other]))
    named = name_figures(figures, model.config.noise)
    assert np.isnan(named['latent_gain'])
    assert named['latent_gain_over_mean'] == 1


def test_levels_below_the_noisy_have_a_gain_too(params, crops, measure):
    figures = measure(params, crops)
    levels = NoiseLevels(sigma_max=4.0)
    named = name_figures(figures, levels)
    assert named['latent_gain'] == figures.error_other[-1] / figures.error[-1]


def test_latents_make_no_difference_to_an_untrained_model(params, crops, measure):
    figures = measure(params, crops)
    np.testing.assert_array_equal(figures.error_other, figures.error)
    np.testing.assert_array_equal(figures.error_mean, figures.error)

"""Finite scalar quantisation, against its closed forms."""

import dataclasses
import fractions
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import small_model
from m2l_jax.interface.settings import build
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.model.bottleneck import (
    draw_rounded,
    from_tokens,
    quantise,
    quantise_rows,
    to_tokens,
    token_histogram,
)
from m2l_jax.model.config import ModelConfig

LEVELS = [2, 3, 5, 8, 11, 256]
DISCRETE = dataclasses.replace(small_model.CONFIG, bottleneck='fsq')


def nearest(x, levels):
    """Number of the nearest level, in exact arithmetic, the even one of two equally near."""
    place = (fractions.Fraction(float(x)) + 1) * (levels - 1) / 2
    return round(place)  # of a fraction: to even


@pytest.mark.parametrize('levels', LEVELS)
def test_tokens_are_the_nearest_levels(levels):
    random = np.random.default_rng(levels)
    ties = (2 * np.arange(levels - 1) + 1) / (levels - 1) - 1
    latents = np.concatenate([random.uniform(-1, 1, 200), [-1, 1, 0]]).astype(np.float32)
    tokens = to_tokens(latents, levels)
    assert tokens.dtype == np.uint8
    np.testing.assert_array_equal(tokens, [nearest(x, levels) for x in latents])
    exact = [tie for tie in ties.astype(np.float32) if float(tie) in ties]
    if levels in (2, 3, 5):  # whose ties are exact numbers
        assert len(exact) == levels - 1
        expected = [nearest(x, levels) for x in exact]
        np.testing.assert_array_equal(to_tokens(np.array(exact), levels), expected)


@pytest.mark.parametrize('levels', LEVELS)
def test_levels_are_equally_spaced_from_minus_1_to_1_and_their_own_tokens(levels):
    tokens = np.arange(levels, dtype=np.uint8)
    latents = from_tokens(tokens, levels)
    assert latents.dtype == np.float32
    np.testing.assert_allclose(latents, np.linspace(-1, 1, levels), atol=1e-7)
    assert (latents[0], latents[-1]) == (-1, 1)
    np.testing.assert_array_equal(to_tokens(latents, levels), tokens)
    np.testing.assert_array_equal(to_tokens(latents + 0.98 / (levels - 1), levels), tokens)
    np.testing.assert_array_equal(to_tokens(latents - 0.98 / (levels - 1), levels), tokens)
    np.testing.assert_array_equal(to_tokens(np.array([-1.5, 7.0]), levels), [0, levels - 1])


@pytest.mark.parametrize('levels', LEVELS)
def test_training_rounds_to_the_same_levels_with_the_gradient_of_tanh(levels):
    outputs = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 5)), jnp.float32)
    latents = np.tanh(outputs)
    rounded = jax.jit(lambda x: quantise(x, levels))(latents)
    expected = from_tokens(to_tokens(latents, levels), levels)
    np.testing.assert_allclose(rounded, expected, atol=2e-7)
    gradient = jax.grad(lambda x: jnp.sum(quantise(jnp.tanh(x), levels) * outputs))(outputs)
    np.testing.assert_allclose(gradient, outputs * (1 - latents**2), rtol=1e-4, atol=1e-6)


def test_rounded_rows_alone_are_rounded():
    latents = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (3, 2, 4)), jnp.float32)
    rounded = quantise_rows(latents, jnp.array([True, False, True]), 5)
    np.testing.assert_array_equal(rounded[1], latents[1])
    np.testing.assert_array_equal(rounded[::2], quantise(latents[::2], 5))
    assert set(np.unique(rounded[::2])) <= {-1, -0.5, 0, 0.5, 1}


@pytest.mark.parametrize('unquantised', [0.0, 0.75, 1.0])
def test_the_share_of_rounded_rows_is_drawn_by_global_row(unquantised):
    key = jax.random.key(3)
    drawn = draw_rounded(key, jnp.arange(4000), unquantised)
    # Five standard deviations of the mean of 4,000 draws.
    deviation = 5 * np.sqrt(unquantised * (1 - unquantised) / 4000)
    assert np.mean(drawn) == pytest.approx(1 - unquantised, abs=deviation)
    part = draw_rounded(key, jnp.arange(1000, 3000), unquantised)
    np.testing.assert_array_equal(part, drawn[1000:3000])


def test_a_rows_other_draws_share_no_key_with_its_rounding():
    row_key = jax.random.fold_in(jax.random.key(3), 7)
    keys = [*jax.random.split(row_key), *(jax.random.fold_in(row_key, 2),)]
    data = {tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in keys}
    assert len(data) == 3


def test_the_histogram_counts_the_tokens_of_each_channel():
    latents = np.random.default_rng(0).uniform(-1, 1, (6, 3, 2)).astype(np.float32)
    tokens = to_tokens(latents, 4)
    expected = [[np.mean(tokens[..., c] == token) for token in range(4)] for c in range(2)]
    np.testing.assert_allclose(token_histogram(jnp.asarray(latents), 4), expected, rtol=1e-6)


def test_a_discrete_model_encodes_to_the_continuous_latents_of_its_parameters():
    """Bit for bit; rounding is a function of them, so that one model gives both."""
    variables = {'params': small_model.random_params()}
    crop = np.random.default_rng(0).normal(size=(1, 1024, 8, 2)).astype(np.float32)
    models = [Music2Latent(config) for config in (small_model.CONFIG, DISCRETE)]
    encoders = [jax.jit(functools.partial(model.apply, method='encode')) for model in models]
    np.testing.assert_array_equal(*(encode(variables, crop) for encode in encoders))


@pytest.mark.parametrize('levels', [11, 5])
def test_a_files_record_holds_bottleneck_and_levels_of_discrete_models_alone(levels):
    config = dataclasses.replace(DISCRETE, levels=levels)
    assert config.record()['bottleneck'] == 'fsq'
    assert config.record()['levels'] == levels
    assert build(ModelConfig, config.record()) == config
    assert not {'bottleneck', 'levels'} & ModelConfig().record().keys()

"""Means over rows of different lengths."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m2l_jax.cpu_kernels import statistics
from m2l_jax.model import ops

channel_means = functools.partial(ops.channel_means, kernels='cpu')

_SPACES = [(12, 8), (8,)]


def _random(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32))


def _square(x):
    return (x - 0.5) ** 2


def _spoilt(space):
    """Two rows, of 8 and of 3 frames, and what their terms' means are."""
    x = _random(2, *space, 5)
    expected = [np.mean(_square(row), axis=range(len(space))) for row in (x[0], x[1, ..., :3, :])]
    return x.at[1, ..., 3:, :].set(jnp.nan), np.stack(expected)


@pytest.fixture(params=[0, 3 * 4 * 2 * 8 * 5, 1e9])
def strips(monkeypatch, request):
    """Small arrays in strips too: of one row, of several, and whole."""
    monkeypatch.setattr(statistics, '_LEAST_BYTES', 0)
    monkeypatch.setattr(statistics, '_STRIP_BYTES', request.param)


@pytest.mark.parametrize('space', _SPACES)
def test_are_over_each_rows_own_frames(strips, space):
    x, expected = _spoilt(space)
    means = jax.jit(channel_means, static_argnums=2)(x, jnp.array([8, 3]), _square)
    np.testing.assert_allclose(means, expected, rtol=1e-5)


@pytest.mark.parametrize('space', _SPACES)
def test_of_all_frames_are_the_mean(strips, space):
    x = _random(2, *space, 5)
    expected = np.mean(x, axis=range(1, x.ndim - 1))
    np.testing.assert_allclose(channel_means(x, None), expected, atol=1e-6)
    np.testing.assert_allclose(channel_means(x, jnp.array([8, 8])), expected, atol=1e-6)


def test_of_no_frame_is_zero(strips):
    np.testing.assert_array_equal(channel_means(_random(1, 12, 8, 5), jnp.array([0])), 0)


def test_a_gradient_is_that_of_the_mean(strips):
    x, lengths = _random(2, 12, 8, 5), jnp.array([8, 3])
    gradient = jax.grad(lambda x: jnp.sum(channel_means(x, lengths, jnp.square)))(x)
    counted = (np.arange(8) < np.array([8, 3])[:, None])[:, None, :, None]
    counts = 12 * np.array([8, 3])[:, None, None, None]
    np.testing.assert_allclose(gradient, 2 * x * counted / counts, rtol=1e-5)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m2l_jax.consistency.noise import NoiseLevels
from m2l_jax.consistency.sampler import sample

LEVELS = NoiseLevels()


def draw(step):
    return jax.random.normal(jax.random.fold_in(jax.random.key(0), step), (64, 32, 32))


@pytest.mark.parametrize(
    ('steps', 'sigmas'),
    # The reference's levels, observed at its model's input.
    [(1, [80]), (2, [80, 2.515219]), (3, [80, 9.723201, 0.469979])],
)
def test_levels_and_noise_of_each_step(steps, sigmas):
    seen = []

    def denoise(noisy, sigma):
        seen.append((noisy, sigma))
        return jnp.ones_like(noisy)

    with jax.disable_jit():  # so that the loop shows what it passes
        result = sample(denoise, draw, LEVELS, steps)
    np.testing.assert_array_equal(result, 1)
    assert len(seen) == steps
    for step, ((noisy, sigma), expected) in enumerate(zip(seen, sigmas, strict=True)):
        np.testing.assert_allclose(sigma, np.full(64, expected), rtol=1e-5)
        clean = 0 if step == 0 else 1
        np.testing.assert_allclose(np.mean(noisy), clean, atol=0.02 * expected)
        np.testing.assert_allclose(np.std(noisy), expected, rtol=0.02)


def test_steps_add_different_noise():
    identity = lambda noisy, sigma: noisy  # noqa: E731
    one = sample(identity, draw, LEVELS, 1)
    np.testing.assert_array_equal(one, sample(identity, draw, LEVELS, 1))
    second = sample(identity, draw, LEVELS, 2) - one
    correlation = np.corrcoef(np.ravel(one), np.ravel(second))[0, 1]
    assert abs(correlation) < 0.02


def test_a_perfect_denoiser_gives_the_posterior_mean_of_a_gaussian():
    """For data N(0, 0.5²), E[x | x_σ] = x_σ·0.25/(0.25 + σ²): the samples' spread is known."""
    denoise = lambda noisy, sigma: noisy * (0.25 / (0.25 + sigma[:, None, None] ** 2))  # noqa: E731
    samples = sample(denoise, draw, LEVELS, 1)
    np.testing.assert_allclose(np.std(samples), 80 * 0.25 / (0.25 + 6400), rtol=0.02)

"""Sampling from a consistency model, in one step or several."""

import jax
import jax.numpy as jnp

from m2l_jax.consistency.loss import Denoise, add_noise
from m2l_jax.consistency.noise import NoiseLevels


def sample(
    denoise: Denoise,
    keys: jax.Array,
    row_shape: tuple[int, ...],
    levels: NoiseLevels,
    steps: int = 1,
) -> jax.Array:
    """Draws a sample for each key, `[B, *row_shape]`, float32, by `steps` evaluations of `denoise`.

    Song et al. 2023, algorithm 1: denoise pure noise at σ_max; for each further step add noise of
    standard deviation √(σ² - σ_min²) and denoise again, with σ at the indices 1 - k/steps.

    Args:
      keys: `[B]`, one a row, so that a row's sample does not depend on the rest of its batch.
    """

    def take_step(step: jax.Array, clean: jax.Array) -> jax.Array:
        sigma = levels.sigma(jnp.full(len(keys), 1 - step / steps))
        # The very first level is so high that the reference takes it for pure noise: x = σ_max·z.
        scale = jnp.where(step == 0, sigma, jnp.sqrt(sigma**2 - levels.sigma_min**2))
        return denoise(add_noise(clean, sampling_noise(keys, step, row_shape), scale), sigma)

    # A loop of the compiler's, for the model to be compiled once and not once a step.
    return jax.lax.fori_loop(0, steps, take_step, jnp.zeros((len(keys), *row_shape)))


def sampling_noise(keys: jax.Array, step: int | jax.Array, row_shape: tuple[int, ...]) -> jax.Array:
    """The Gaussian noise of a sampling step, `[B, *row_shape]`."""
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, step), row_shape))(keys)

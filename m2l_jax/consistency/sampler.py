"""Sampling from a consistency model, in one step or several."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from m2l_jax.consistency.loss import Denoise, add_noise
from m2l_jax.consistency.noise import NoiseLevels


def sample(
    denoise: Denoise,
    draw_noise: Callable[[jax.Array], jax.Array],
    levels: NoiseLevels,
    steps: int = 1,
) -> jax.Array:
    """Draws a sample for each row of noise, `[B, ...]`, float32, by `steps` runs of `denoise`.

    Song et al. 2023, algorithm 1: denoise pure noise at σ_max; for each further step add noise of
    standard deviation √(σ² - σ_min²) and denoise again, with σ at the indices 1 - k/steps.
    `draw_noise` gives the standard Gaussian noise `[B, ...]` of a step, from 0.
    """
    noise = jax.eval_shape(draw_noise, 0)

    def take_step(step: jax.Array, clean: jax.Array) -> jax.Array:
        sigma = levels.sigma(jnp.full(noise.shape[:1], 1 - step / steps))
        # The very first level is so high that the reference takes it for pure noise: x = σ_max·z.
        scale = jnp.where(step == 0, sigma, jnp.sqrt(sigma**2 - levels.sigma_min**2))
        return denoise(add_noise(clean, draw_noise(step), scale), sigma)

    # A loop of the compiler's, for the model to be compiled once and not once a step.
    return jax.lax.fori_loop(0, steps, take_step, jnp.zeros(noise.shape))

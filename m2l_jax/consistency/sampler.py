"""Sampling from a consistency model, in one step or several."""

import jax
import jax.numpy as jnp

from m2l_jax.consistency.loss import Denoise, add_noise
from m2l_jax.consistency.noise import NoiseLevels


def sample(
    denoise: Denoise, key: jax.Array, shape: tuple[int, ...], levels: NoiseLevels, steps: int = 1
) -> jax.Array:
    """Draws `shape = (B, ...)` samples, float32, by `steps` evaluations of `denoise`.

    Song et al. 2023, algorithm 1: denoise pure noise at σ_max; for each further step add noise of
    standard deviation √(σ² - σ_min²) and denoise again, with σ at the indices 1 - k/steps.
    """
    clean = jnp.zeros(shape)
    for step in range(steps):
        sigma = levels.sigma(jnp.full(shape[:1], 1 - step / steps))
        noise = jax.random.normal(jax.random.fold_in(key, step), shape)
        # The very first level is so high that the reference takes it for pure noise: x = σ_max·z.
        scale = sigma if step == 0 else jnp.sqrt(sigma**2 - levels.sigma_min**2)
        clean = denoise(add_noise(clean, noise, scale), sigma)
    return clean

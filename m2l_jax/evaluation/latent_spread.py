"""Spread of latents, and the part of them that is stuck at the ends of tanh."""

import jax
import jax.numpy as jnp

_SATURATED = 0.99


def latent_moments(latents: jax.Array) -> dict[str, jax.Array]:
    """Means that `latent_spread` needs, of latents of any shape; their means are those of more."""
    return {
        'mean': jnp.mean(latents),
        'mean_square': jnp.mean(latents**2),
        'saturated': jnp.mean((jnp.abs(latents) > _SATURATED).astype(jnp.float32)),
    }


def latent_spread(moments: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Standard deviation of the latents, and the part of them that is stuck at -1 or 1."""
    variance = moments['mean_square'] - moments['mean'] ** 2
    return {
        'latent_std': jnp.sqrt(jnp.maximum(variance, 0.0)),
        'latents_saturated': moments['saturated'],
    }

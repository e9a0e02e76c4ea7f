"""Maps from the encoder's outputs to latents, chosen by name: `ModelConfig.bottleneck`.

A new one is a module like `Tanh` and a line in `BOTTLENECKS`. It may have parameters.

A discrete model ('fsq': finite scalar quantisation, Mentzer et al. 2023, arXiv 2309.15505) has the
same latents in [-1, 1]. Its decoder is trained on rounded ones too, so that each number may be
stored as an integer, a token: the nearest of `ModelConfig.levels` equally spaced values from -1
to 1. For an odd number of levels these are the paper's; for an even one, which the paper shifts by
half a step to include 0, they are symmetric.
"""

import types
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

_ROUNDING = 2  # folded into a row's key, which is split into two for its other draws


class Tanh(nn.Module):
    """Continuous latents in [-1, 1], as in the paper."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps the encoder's outputs `[B, L, C]` to latents `[B, L, C]`."""
        return nn.tanh(x)


BOTTLENECKS: Mapping[str, type[nn.Module]] = types.MappingProxyType({'tanh': Tanh, 'fsq': Tanh})


def to_tokens(latents: np.ndarray, levels: int) -> np.ndarray:
    """Number of the nearest level, from 0 for -1 to levels - 1 for 1, of latents of any shape.

    uint8. A number halfway between two levels takes the even one; beyond ±1 it takes the last.
    """
    places = _places(latents.astype(np.float32), levels)
    return np.rint(np.clip(places, 0, levels - 1)).astype(np.uint8)


def from_tokens(tokens: np.ndarray, levels: int) -> np.ndarray:
    """Latents in [-1, 1], float32, of the numbers that `to_tokens` gives."""
    return _values(tokens.astype(np.float32), levels)


def quantise(latents: jax.Array, levels: int) -> jax.Array:
    """Rounds latents in [-1, 1] to the nearest of the levels; the gradient passes unchanged.

    q(x) = 2·round((L - 1)(x + 1)/2)/(L - 1) - 1, with the straight-through estimator.
    """
    rounded = _values(jnp.round(_places(latents, levels)), levels)
    # The last two terms are 0, so that the value is exactly a level.
    return jax.lax.stop_gradient(rounded) + (latents - jax.lax.stop_gradient(latents))


def draw_rounded(key: jax.Array, rows: jax.Array, unquantised: float) -> jax.Array:
    """Draws the rows of a training step whose latents are rounded, `[B]`, boolean.

    Args:
      key: of the step.
      rows: `[B]`, numbers in the *global* batch.
      unquantised: share of the rows whose latents are left as they are.
    """

    def draw_row(row):
        row_key = jax.random.fold_in(jax.random.fold_in(key, row), _ROUNDING)
        return jax.random.uniform(row_key) >= unquantised

    return jax.vmap(draw_row)(rows)


def quantise_rows(latents: jax.Array, rounded: jax.Array, levels: int) -> jax.Array:
    """Rounds, see `quantise`, the latents `[B, L, C]` of the rows where `rounded` `[B]` is True."""
    return jnp.where(rounded[:, None, None], quantise(latents, levels), latents)


def token_histogram(latents: jax.Array, levels: int) -> jax.Array:
    """Share of each token in each channel, `[C, levels]`, of latents `[B, L, C]`."""
    tokens = jnp.round(_places(latents, levels)).astype(jnp.int32)
    return jnp.mean(jax.nn.one_hot(tokens, levels), axis=(0, 1))


def _places(latents, levels: int):
    """Places on the scale of levels, from 0 to levels - 1, not rounded."""
    return (latents + 1) * ((levels - 1) / 2)


def _values(places, levels: int):
    """Inverts `_places`."""
    return 2 * places / (levels - 1) - 1

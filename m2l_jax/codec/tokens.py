"""Latents of a discrete model as integers."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from m2l_jax.codec.arrays import as_array
from m2l_jax.codec.batches import RowCodec
from m2l_jax.interface.errors import InputError
from m2l_jax.model.bottleneck import from_tokens, to_tokens


class TokenCodec(RowCodec):
    """Converts between latents and tokens."""

    def check_discrete(self) -> None:
        """Raises an InputError for a continuous model."""
        if not self.config.is_discrete:
            raise InputError(
                f'this model has no tokens, its bottleneck {self.config.bottleneck!r} is '
                'continuous: train one with configs/discrete.py'
            )

    def to_tokens(self, latents: Any) -> np.ndarray:
        """Rounds latents to tokens, integers from 0 to levels - 1, uint8.

        Args:
          latents: of any shape, as `encode` returns them.

        Raises:
          InputError: for a continuous model, or numbers that are not finite.
        """
        self.check_discrete()
        latents = as_array(latents, 'latents')
        if not jnp.issubdtype(latents.dtype, jnp.floating):
            raise InputError(f'the array holds {latents.dtype}: latents are floating-point numbers')
        latents = latents.astype(np.float32)
        if not np.isfinite(latents).all():
            raise InputError('the array holds NaN or infinity: replace or remove it')
        return to_tokens(latents * self.config.latent_scale, self.config.levels)

    def from_tokens(self, tokens: Any) -> np.ndarray:
        """Returns the latents of tokens of any shape, float32, for `decode`.

        Raises:
          InputError: for a continuous model, numbers that are no integers, or others than tokens.
        """
        self.check_discrete()
        tokens = as_array(tokens, 'tokens')
        if not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise InputError(f'tokens are integers, not {tokens.dtype}: decode latents as they are')
        check_tokens('the array', tokens, self.config.levels)
        return from_tokens(tokens, self.config.levels) * (1 / self.config.latent_scale)


def check_tokens(name: str, tokens: np.ndarray, levels: int) -> None:
    """Raises an InputError for integers of a file, or an array, that are no tokens."""
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < levels:
        raise InputError(
            f'{name} holds tokens from {tokens.min()} to {tokens.max()}: those of {levels} levels '
            f'are 0 to {levels - 1}'
        )

"""Maps from the encoder's outputs to latents, chosen by name: `ModelConfig.bottleneck`.

A new one is a module like `Tanh` and a line in `BOTTLENECKS`. It may have parameters.
"""

import types
from collections.abc import Mapping

import flax.linen as nn
import jax


class Tanh(nn.Module):
    """Continuous latents in [-1, 1], as in the paper."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps the encoder's outputs `[B, L, C]` to latents `[B, L, C]`."""
        return nn.tanh(x)


BOTTLENECKS: Mapping[str, type[nn.Module]] = types.MappingProxyType({'tanh': Tanh})

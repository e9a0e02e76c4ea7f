"""Random keys, of one implementation whatever JAX's default is."""

import jax

_IMPLEMENTATION = 'threefry2x32'


def random_key(seed: int | jax.Array) -> jax.Array:
    """The key of a seed, from 0 to 2³² - 1."""
    return jax.random.key(seed, impl=_IMPLEMENTATION)

"""How much is taken at a time."""

import jax
import jax.numpy as jnp
import pytest

from m2l_jax.model.strips import largest_strip, late_zero


@pytest.mark.parametrize(
    ('rows', 'most_bytes', 'multiple', 'size'),
    [
        (16, 120, 4, 8),
        (24, 120, 4, 12),
        (24, 100, 1, 8),
        (24, 1e9, 1, 24),
        (24, 0, 1, 1),
        (24, 0, 4, 4),
        (7, 60, 1, 1),  # of a prime number, all or one
    ],
)
def test_is_the_most_that_divides_and_fits(rows, most_bytes, multiple, size):
    assert largest_strip(rows, 10, most_bytes, multiple) == size


@pytest.mark.parametrize('first', [3.0, -3.0, jnp.inf, jnp.nan])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_a_late_zero_is_zero(first, dtype):
    gradient = jnp.full((2, 3), 7, dtype).at[0, 0].set(first)
    zero = late_zero(gradient)
    assert (zero, zero.dtype, zero.shape) == (0, dtype, ())


def test_a_late_zero_is_not_known_before_the_gradient():
    compiled = jax.jit(late_zero).lower(jnp.ones((2, 3))).compile().as_text()
    assert 'is-finite' in compiled

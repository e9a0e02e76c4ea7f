"""Sizes and rows of strips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m2l_jax.cpu_kernels.strips import largest_strip, late_zero, padded_rows


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


@pytest.mark.parametrize(('first', 'count'), [(2, 3), (-1, 4), (4, 3), (-2, 10)])
def test_rows_beyond_the_ends_are_zeros(first, count):
    x = jnp.arange(1.0, 13).reshape(1, 6, 2, 1)
    rows = jax.jit(padded_rows, static_argnums=2)(x, first, count)
    padded = np.pad(x, ((0, 0), (2, 4), (0, 0), (0, 0)))
    np.testing.assert_array_equal(rows, padded[:, first + 2 : first + 2 + count])


def test_what_rows_beyond_the_ends_are_prepared_to_does_not_matter():
    x = jnp.zeros((1, 2, 1, 1)).at[0, 1].set(3.0)
    rows = padded_rows(x, jnp.int32(-1), 4, lambda rows: 1 / rows)
    np.testing.assert_array_equal(rows.ravel(), [0, jnp.inf, 1 / jnp.float32(3), 0])


@pytest.mark.parametrize('first', [3.0, -3.0, jnp.inf, jnp.nan])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_a_late_zero_is_zero(first, dtype):
    gradient = jnp.full((2, 3), 7, dtype).at[0, 0].set(first)
    zero = late_zero(gradient)
    assert (zero, zero.dtype, zero.shape) == (0, dtype, ())


def test_a_late_zero_is_not_known_before_the_gradient():
    compiled = jax.jit(late_zero).lower(jnp.ones((2, 3))).compile().as_text()
    assert 'is-finite' in compiled

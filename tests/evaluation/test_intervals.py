import numpy as np
import pytest

from m2l_jax.evaluation.statistics import interval, mean


def test_the_interval_is_that_of_a_normal_mean():
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = interval(values)
    error = 1.96 * np.std(values) / 20
    assert (low, high) == (
        pytest.approx(np.mean(values) - error, abs=0.02),
        pytest.approx(np.mean(values) + error, abs=0.02),
    )
    assert interval(values) == (low, high)  # the same each time


def test_what_is_not_finite_has_no_part():
    values = np.array([1.0, np.nan, 3.0, np.inf])
    assert mean(values) == 2
    assert interval(values) == (1, 3)
    assert np.isnan(mean(np.array([np.nan])))
    assert np.isnan(interval(np.array([1.0]))).all()

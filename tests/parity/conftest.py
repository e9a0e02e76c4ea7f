"""What is compared with the package is compiled as for users."""

import jax
import pytest

SETTING = 'jax_disable_most_optimizations'


@pytest.fixture(scope='module', autouse=True)
def optimised():
    before = jax.config.read(SETTING)
    jax.config.update(SETTING, False)
    yield
    jax.config.update(SETTING, before)

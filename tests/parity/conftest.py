"""What is compared with the package is compiled as for users."""

import functools

import jax
import pytest
from jax._src import compiler

SETTING = 'jax_disable_most_optimizations'


@pytest.fixture(scope='module', autouse=True)
def optimised():
    before, get_options = jax.config.read(SETTING), compiler.get_compile_options

    @functools.wraps(get_options)
    def with_emitters(*arguments, env_options_overrides=None, **options):
        overrides = {**(env_options_overrides or {}), 'xla_cpu_use_fusion_emitters': True}
        return get_options(*arguments, env_options_overrides=overrides, **options)

    jax.config.update(SETTING, False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, 'get_compile_options', with_emitters)
        yield
    jax.config.update(SETTING, before)

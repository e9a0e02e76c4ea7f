import jax
import jax.numpy as jnp

from m2l_jax.codec import compiler_options
from m2l_jax.codec.compiler_options import inference_options


def chain(x):
    """Each product needs a sorted array, which could be there long before its turn."""
    y = x
    for number in range(8):
        y = y @ jnp.sort(x * number)
    return y


def memory(options):
    program = jax.jit(chain, compiler_options=options)
    compiled = program.lower(jax.ShapeDtypeStruct((256, 256), jnp.float32)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_a_cpu_keeps_less_at_once():
    assert memory(inference_options('cpu')) <= 0.5 * memory({})


def test_other_platforms_are_left_alone():
    assert inference_options('cuda') == inference_options('tpu') == {}


def test_a_version_without_the_option_goes_on_without(monkeypatch):
    monkeypatch.setattr(compiler_options, '_SAVE_MEMORY', {'xla_cpu_no_such_option': 'X'})
    compiler_options._is_known.cache_clear()
    assert inference_options('cpu') == {}
    compiler_options._is_known.cache_clear()

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m2l_jax.codec import batches, placement
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.codec.placement import inference_options
from m2l_jax.model.autoencoder import Music2Latent


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
    if not inference_options('cpu'):
        pytest.skip('this version of XLA has no such option')
    assert memory(inference_options('cpu')) <= 0.5 * memory({})


def test_other_platforms_are_left_alone():
    assert inference_options('cuda') == inference_options('tpu') == {}


@pytest.fixture
def forgets():
    inference_options.cache_clear()
    yield
    inference_options.cache_clear()


@pytest.mark.usefixtures('forgets')
def test_a_version_without_the_option_goes_on_without(monkeypatch):
    monkeypatch.setattr(placement, '_SAVE_MEMORY', {'xla_cpu_no_such_option': 'X'})
    assert inference_options('cpu') == {}


@pytest.mark.parametrize('devices', [None, jax.devices('cpu')[:1]])
def test_both_programs_are_compiled_with_the_options_of_their_devices(
    tiny_config, monkeypatch, devices
):
    # What XLA does not know it refuses, by name.
    monkeypatch.setattr(batches, 'inference_options', lambda platform: {f'none_of_{platform}': '1'})
    model = Music2Latent(tiny_config)
    shapes = jax.eval_shape(lambda: model.init_params(jax.random.key(0)))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    codec = EncoderDecoder.from_params(model, params, devices=devices)
    with pytest.raises(jax.errors.JaxRuntimeError, match='none_of_cpu'):
        codec.encode(np.zeros((1, 20_000), np.float32))
    with pytest.raises(jax.errors.JaxRuntimeError, match='none_of_cpu'):
        codec.decode(np.zeros((1, 8, 2), np.float32))

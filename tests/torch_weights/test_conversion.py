"""Names, layouts and sizes; what the package itself makes of them is in tests/parity."""

import dataclasses

import jax
import numpy as np
import pytest

from m2l_jax.audio.spectrogram import SpectrogramConfig
from m2l_jax.configs import default, demo
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.settings import build
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.model.config import ModelConfig
from m2l_jax.torch_weights.names import name_table, tensor_shapes
from m2l_jax.torch_weights.sizes import infer_config
from m2l_jax.torch_weights.state_dict import from_state_dict, to_state_dict

UNEVEN = ModelConfig(
    base_channels=8,
    channel_multipliers=(1, 2, 3),
    downsampling=((2, 2), (4, 1)),
    attention=(False, True, False),
    encoder_blocks=2,
    decoder_blocks=2,
    unet_blocks=3,
    bottleneck_channels=32,
    bottleneck_blocks=3,
    latent_channels=5,
    embedding_channels=24,
    spectrogram=SpectrogramConfig(window=256, hop=64),
)


def random_params(config, seed=0):
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(Music2Latent(config).init_params, jax.random.key(0))
    return jax.tree.map(lambda leaf: random.standard_normal(leaf.shape, np.float32), shapes)


@pytest.mark.parametrize(
    'config',
    [
        ModelConfig(),
        dataclasses.replace(UNEVEN),
        dataclasses.replace(build(ModelConfig, demo.get_config().model), attention_heads=4),
    ],
    ids=['released', 'uneven', 'demo'],
)
def test_sizes_are_recognised_from_the_shapes(config):
    assert infer_config(tensor_shapes(config)) == config


def test_the_released_model_has_as_many_numbers_as_the_package():
    shapes = tensor_shapes(build(ModelConfig, default.get_config().model))
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 58_185_026
    # Of every kind of tensor one, as in the package.
    assert shapes['encoder.gain.scale'] == (1, 1, 1024, 1)
    assert shapes['encoder.down_layers.1.c.weight'] == (64, 64, 5, 1)
    assert shapes['encoder.bottleneck_layers.0.weight'] == (512, 8192, 1)
    assert shapes['decoder.bottleneck_layers.3.proj_emb.bias'] == (512,)
    assert shapes['up_layers.1.att.mha.in_proj_weight'] == (768, 256)
    assert shapes['scale_out.4.weight'] == (1024, 256)


def test_each_parameter_and_tensor_comes_once():
    table = name_table(UNEVEN)
    assert len({entry.tensor for entry in table}) == len({entry.path for entry in table})
    assert len(table) == len(jax.tree.leaves(random_params(UNEVEN)))


def test_round_trip_is_exact_both_ways():
    params = random_params(UNEVEN)
    tensors = to_state_dict(params, UNEVEN)
    assert {name: tensor.shape for name, tensor in tensors.items()} == tensor_shapes(UNEVEN)
    back = from_state_dict(tensors, UNEVEN)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, back, params)
    for name, tensor in to_state_dict(back, UNEVEN).items():
        np.testing.assert_array_equal(tensor, tensors[name])


def test_layouts():
    params = random_params(UNEVEN)
    tensors = to_state_dict(params, UNEVEN)
    kernel = params['unet']['conv_in']['kernel']  # [3, 3, 2, 8]
    assert tensors['conv_inp.weight'][5, 1, 0, 2] == kernel[0, 2, 1, 5]
    linear = params['unet']['scale_in']['out']['kernel']  # [24, 128]
    assert tensors['scale_inp.4.weight'][100, 3] == linear[3, 100]
    kernel = params['decoder']['bottleneck_0']['conv_in']['kernel']  # [3, 32, 32]
    assert tensors['decoder.bottleneck_layers.0.conv1.weight'][4, 7, 2] == kernel[2, 7, 4]


def test_tensors_that_do_not_fit_are_named():
    tensors = to_state_dict(random_params(UNEVEN), UNEVEN)
    tensors['extra.weight'] = tensors.pop('conv_inp.bias')
    tensors['norm_out.bias'] = np.zeros(3, np.float32)
    message = (
        r'missing: conv_inp\.bias; unknown: extra\.weight; '
        r'of another shape: norm_out\.bias \(3,\) instead of \(8,\)'
    )
    with pytest.raises(InputError, match=message):
        from_state_dict(tensors, UNEVEN)


def test_unused_tensors_may_be_missing():
    params = random_params(UNEVEN)
    tensors = to_state_dict(params, UNEVEN)
    del tensors['decoder.bottleneck_layers.0.proj_emb.weight']
    jax.tree.map(np.testing.assert_array_equal, from_state_dict(tensors, UNEVEN), params)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'decoder_blocks': 1}, 'model.encoder_blocks=2 and model.decoder_blocks=1'),
        ({'spectrogram': SpectrogramConfig(window=256, hop=128)}, 'a window of four hops'),
        ({'downsampling': ((2, 1), (4, 1))}, r'\(2, 1\) of model.downsampling'),
    ],
)
def test_sizes_that_the_package_lacks_are_refused(change, message):
    config = dataclasses.replace(UNEVEN, **change)
    with pytest.raises(InputError, match=message):
        to_state_dict(random_params(config), config)


def test_a_tensor_of_another_rank_is_named():
    shapes = tensor_shapes(UNEVEN) | {'encoder.gain.scale': (128,)}
    with pytest.raises(InputError, match=r'encoder\.gain\.scale has shape \(128,\)'):
        infer_config(shapes)
    del shapes['down_layers.1.conv1.weight']
    with pytest.raises(InputError, match=r'down_layers has \[2, 3, 3\] blocks at its levels'):
        infer_config(shapes | {'encoder.gain.scale': (1, 1, 128, 1)})


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        (['conv.weight'], r'no tensors down_layers\.\*\.conv1\.weight: this is not a Music2Latent'),
        (['down_layers.1.conv1.weight'], 'this is not a Music2Latent model'),
    ],
)
def test_another_architecture_is_told(names, message):
    with pytest.raises(InputError, match=message):
        infer_config(dict.fromkeys(names, (8, 8, 3, 3)))

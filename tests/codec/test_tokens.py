import dataclasses

import jax
import numpy as np
import pytest

from benchmarks import small_model
from m2l_jax.checkpoint.store import save_model
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.torch_weights.conversion import save_torch_model
from tests.conftest import make_music

CONFIG = dataclasses.replace(small_model.CONFIG, bottleneck='fsq', levels=11)


def make_codec(config=CONFIG):
    devices = jax.local_devices()[:1]
    params = small_model.random_params(config)
    return EncoderDecoder.from_params(Music2Latent(config), params, devices=devices)


@pytest.fixture(scope='module')
def codec():
    return make_codec()


@pytest.fixture(scope='module')
def latents(codec):
    return codec.encode(make_music(0.5, channels=2))


def test_tokens_decode_to_the_bit_as_the_rounded_latents(codec, latents):
    tokens = codec.to_tokens(latents)
    assert tokens.dtype == np.uint8
    assert tokens.shape == latents.shape
    rounded = 2 * np.rint((latents * 0.06 + 1) * 5).astype(np.float32) / 10 - 1
    rounded = rounded * np.float32(1 / 0.06)
    np.testing.assert_array_equal(codec.from_tokens(tokens), rounded)
    np.testing.assert_array_equal(codec.to_tokens(rounded), tokens)
    expected = codec.decode(rounded)
    np.testing.assert_array_equal(codec.decode(codec.from_tokens(tokens)), expected)
    assert np.any(codec.decode(latents) != expected)


def test_a_reconstruction_from_tokens(codec):
    audio = make_music(0.5)
    tokens = codec.to_tokens(codec.encode(codec.pad(audio)))
    expected = codec.decode(codec.from_tokens(tokens))[:, : audio.shape[1]]
    np.testing.assert_array_equal(codec.reconstruct(audio, tokens=True), expected)


@pytest.mark.parametrize('dtype', [np.uint8, np.int64, '>i4'])
def test_tokens_of_any_integer_type_are_taken(codec, dtype):
    tokens = np.array([[0, 5, 10]])
    expected = np.array([[-1, 0, 1]]) / 0.06
    np.testing.assert_allclose(codec.from_tokens(tokens.astype(dtype)), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ('tokens', 'message'),
    [
        ([[0.5]], 'tokens are integers, not float64'),
        ([[0, 11]], 'the array holds tokens from 0 to 11: those of 11 levels are 0 to 10'),
        ([[-1, 3]], 'the array holds tokens from -1 to 3'),
        ([[1, 2], [3]], 'tokens cannot be made an array: '),
        ('song.npz', 'tokens is a file where an array is wanted: read it first'),
    ],
)
def test_what_is_no_token_is_refused(codec, tokens, message):
    with pytest.raises(InputError, match=message):
        codec.from_tokens(tokens)


@pytest.mark.parametrize('number', [np.nan, np.inf])
def test_what_is_not_finite_has_no_tokens(codec, number):
    with pytest.raises(InputError, match='holds NaN or infinity'):
        codec.to_tokens(np.full((8, 2), number))


def test_a_continuous_model_gives_no_tokens():
    codec = make_codec(small_model.CONFIG)
    message = "has no tokens, its bottleneck 'tanh' is continuous: train one with configs/discrete"
    for refused in (
        lambda: codec.to_tokens(np.zeros((8, 2))),
        lambda: codec.from_tokens(np.zeros((8, 2), int)),
    ):
        with pytest.raises(InputError, match=message):
            refused()


def test_a_codec_names_its_model_in_a_line(codec):
    parameters = sum(leaf.size for leaf in jax.tree.leaves(codec.params))
    assert repr(codec) == (
        f'EncoderDecoder(model {codec.model_id}, {parameters:,} parameters, mono of 44100 Hz, '
        "8 numbers per 1024 samples, bottleneck 'fsq' of 11 levels, computes in float32)"
    )
    stereo = make_codec(dataclasses.replace(small_model.CONFIG, channels=4))
    assert "stereo of 44100 Hz, 8 numbers per 1024 samples, bottleneck 'tanh', " in repr(stereo)


@pytest.mark.parametrize('suffix', ['.safetensors', '.pt', ''])
@pytest.mark.parametrize('levels', [11, 6])
def test_a_discrete_model_is_kept_in_every_kind_of_file(tmp_path, suffix, levels):
    config = dataclasses.replace(CONFIG, levels=levels)
    params, path = small_model.random_params(config), tmp_path / f'model{suffix}'
    if suffix:
        save_torch_model(path, config, params)
    else:
        save_model(path, config, params)
    codec = EncoderDecoder(path)
    assert codec.config == config
    assert codec.model_id == make_codec(config).model_id

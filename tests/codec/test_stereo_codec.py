"""A stereo model: one latent sequence of both channels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import small_model
from m2l_jax.audio.planes import to_planes
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.model.config import ModelConfig
from tests.conftest import make_music

CONFIG = dataclasses.replace(small_model.CONFIG, channels=4)
STEP, REACH = 1024, 1536


@pytest.fixture(scope='module')
def codec():
    params = small_model.random_params(CONFIG)
    return EncoderDecoder.from_params(Music2Latent(CONFIG), params, devices=jax.devices()[:1])


@pytest.fixture(scope='module')
def music():
    return make_music(1, channels=2, seed=5)[:, : 20 * STEP + REACH]


def test_both_channels_have_one_sequence(codec, music):
    latents = codec.encode(music)
    assert latents.shape == (1, 8, 20)
    planes = to_planes(jnp.asarray(music), CONFIG.spectrogram, 'left_right')[None, :, : 20 * 2]
    expected = codec.model.apply({'params': codec.params}, planes, method='encode')
    np.testing.assert_allclose(latents[0].T * CONFIG.latent_scale, expected[0], atol=1e-5)
    assert codec.encode(music, extract_features=True).shape == (1, CONFIG.feature_channels, 20)


def test_decoding_gives_both_channels(codec, music):
    latents = codec.encode(music)
    audio = codec.decode(latents)
    assert audio.shape == music.shape
    assert audio.dtype == np.float32
    assert np.any(audio[0] != audio[1])
    np.testing.assert_array_equal(codec.decode(latents[0]), audio)
    assert codec.reconstruct(music[:, :12_345]).shape == (2, 12_345)


def test_channels_depend_on_each_other(codec, music):
    one_silent = music * np.array([[1.0], [0.0]], np.float32)
    assert np.abs(codec.encode(one_silent) - codec.encode(music)).max() > 1e-3


def test_mono_fills_both_channels(codec, music):
    twice = np.stack([music[0], music[0]])
    expected = codec.encode(twice)
    for mono in (music[0], music[:1]):
        np.testing.assert_array_equal(codec.encode(mono), expected)
    assert codec.reconstruct(music[:1]).shape == music.shape
    assert codec.pad(music[:1]).shape[0] == 1


def test_chunks_and_batches_change_nothing(codec, music):
    """Wrapped and overlapping chunks of two pieces, each as alone."""
    pieces = [music, music[:1, : 9 * STEP + REACH]]
    for overlap in (0, 2 * STEP):
        options = {'max_waveform_length': 6 * STEP, 'overlap': overlap}
        together = codec.encode_batch(pieces, max_batch_size=4, **options)
        for piece, latents in zip(pieces, together, strict=True):
            np.testing.assert_allclose(latents, codec.encode(piece, **options), atol=1e-4)
        audio = codec.decode(together[0], **options)
        assert audio.shape == music.shape


def test_mid_and_side_are_a_rotation_of_left_and_right(codec, music):
    """The same parameters, given the rotated waveform."""
    config = dataclasses.replace(CONFIG, stereo='mid_side')
    rotated = EncoderDecoder.from_params(
        Music2Latent(config), codec.params, devices=jax.devices()[:1]
    )
    rotation = np.array([[1, 1], [1, -1]], np.float32) * np.sqrt(np.float32(0.5))
    latents = rotated.encode(music)
    np.testing.assert_allclose(latents, codec.encode(rotation @ music), atol=1e-3)
    quiet = 0.01 * latents  # nothing is clipped
    np.testing.assert_allclose(
        rotated.decode(quiet), np.clip(rotation @ codec.decode(quiet), -1, 1), atol=1e-4
    )
    assert rotated.model_id != codec.model_id


def test_what_stereo_cannot_be_is_refused(codec):
    with pytest.raises(InputError, match=r'audio has 3 channels, and a stereo model takes one'):
        codec.encode(np.zeros((3, 9000), np.float32))
    with pytest.raises(InputError, match=r'shape \(2, 8, 20\): 2 sequences, and a stereo model'):
        codec.decode(np.zeros((2, 8, 20), np.float32))


@pytest.mark.parametrize('channels', [1, 3, 6])
def test_planes_are_of_whole_channels(channels):
    with pytest.raises(InputError, match=rf'model\.channels={channels} counts planes.* 4 for ster'):
        ModelConfig(channels=channels)


def test_a_layout_of_mono_is_refused():
    with pytest.raises(InputError, match=r"model\.stereo='mid_side' .*set model\.channels=4 too"):
        ModelConfig(stereo='mid_side')
    with pytest.raises(InputError, match=r"model\.stereo='quad' must be one of left_right, mid_si"):
        ModelConfig(channels=4, stereo='quad')


def test_records_of_mono_are_as_before():
    assert not {'channels', 'stereo'} & ModelConfig().record().keys()
    record = ModelConfig(channels=4, stereo='mid_side').record()
    assert (record['channels'], record['stereo']) == (4, 'mid_side')
    assert (ModelConfig(channels=4).audio_channels, ModelConfig().audio_channels) == (2, 1)

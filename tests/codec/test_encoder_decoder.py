import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m2l_jax.audio.spectrogram import to_spectrogram
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.training.state import compute_once
from tests.conftest import make_music


@pytest.fixture(scope='module')
def codec(tiny_config):
    model = Music2Latent(tiny_config)
    return EncoderDecoder.from_params(
        model, compute_once(lambda: model.init_params(jax.random.key(0)))
    )


def test_latents_are_the_models_scaled_and_channel_major(codec):
    music = make_music(0.5, channels=2)
    latents = codec.encode(music)
    assert latents.shape == (2, 8, (22_050 - 1536) // 4096)
    spectrogram = to_spectrogram(jnp.asarray(music), codec.config.spectrogram)[:, :, :40]
    expected = codec._model.apply({'params': codec.params}, spectrogram, method='encode')
    np.testing.assert_allclose(latents * 0.06, expected.swapaxes(1, 2), atol=1e-5)


def test_nothing_is_dropped_of_padded_audio(codec):
    for samples in (1, 4096, 4097, 20_000):
        padded = codec.pad(np.ones((1, samples), np.float32))
        restored = codec.decode(codec.encode(padded))
        assert restored.shape == padded.shape
        assert restored.shape[1] >= samples


def test_seed_decides_the_output(codec):
    latents = codec.encode(make_music(0.5))
    one = codec.decode(latents, seed=1)
    np.testing.assert_array_equal(one, codec.decode(latents, seed=1))
    assert np.any(one != codec.decode(latents, seed=2))
    assert np.any(one != codec.decode(latents, denoising_steps=2, seed=1))


def test_chunks_and_batches(codec):
    music = make_music(0.5, channels=2)
    cut = {'max_waveform_length': 2 * 4096}
    latents = codec.encode(music, **cut)
    assert latents.shape == (2, 8, 5)
    second = codec.encode(music[:, 2 * 4096 : 4 * 4096 + 1536])
    np.testing.assert_allclose(latents[..., 2:4], second, atol=1e-4)
    # How many rows are computed at once changes nothing.
    for rows in (2, 4, 100):
        batched = codec.encode(music, **cut, max_batch_size=rows)
        np.testing.assert_allclose(batched, latents, atol=1e-4)
    waveform = codec.decode(latents, **cut)
    assert waveform.shape == (2, 5 * 4096 + 1536)
    batched = codec.decode(latents, **cut, max_batch_size=4)
    np.testing.assert_allclose(batched, waveform, atol=1e-4)


def test_features_are_those_of_the_model(codec):
    music = make_music(0.5)
    features = codec.encode(music, extract_features=True)
    assert features.shape == (1, codec.config.feature_channels, 5)
    spectrogram = to_spectrogram(jnp.asarray(music), codec.config.spectrogram)[:, :, :40]
    expected = codec._model.apply({'params': codec.params}, spectrogram, method='features')
    np.testing.assert_allclose(features, expected.swapaxes(1, 2), atol=1e-4)


def test_bfloat16_stays_near_float32(codec):
    half = EncoderDecoder.from_params(codec._model, codec.params, dtype='bfloat16')
    music = make_music(0.5)
    exact, rounded = codec.encode(music), half.encode(music)
    assert rounded.dtype == np.float32
    relative = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    assert 1e-4 < relative <= 10 ** (-35 / 20)


def test_float32_is_multiplied_in_full_on_every_device(codec):
    for dtype, asked in (('float32', True), ('bfloat16', False)):
        other = EncoderDecoder.from_params(codec._model, codec.params, dtype=dtype)
        spectrogram = jnp.zeros((1, other.config.spectrogram.bins, 8, 2))
        lowered = other._encode_rows.lower(other.params, spectrogram, method='encode').as_text()
        assert ('precision = [HIGHEST, HIGHEST]' in lowered) == asked


def test_a_minute_is_645_latents(codec):
    assert codec._latents_in_chunk(None) == 645


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ({'max_waveform_length': 4095}, 'max_waveform_length=4095 must be at least 4096 samples'),
        ({'max_batch_size': 0}, 'max_batch_size=0 must be at least 1'),
    ],
)
def test_bad_options_are_told(codec, option, message):
    with pytest.raises(InputError, match=message):
        codec.encode(make_music(0.5), **option)


def test_other_parameters_share_the_model(codec):
    zeros = jax.tree.map(jnp.zeros_like, codec.params)
    assert not np.any(codec.with_params(zeros).encode(make_music(0.5)))
    assert np.any(codec.encode(make_music(0.5)))


def test_no_denoising_is_told(codec):
    with pytest.raises(InputError, match='denoising_steps=0 must be at least 1'):
        codec.decode(np.zeros((1, 8, 2), np.float32), 0)


def test_the_fingerprint_is_of_sizes_and_parameters_and_not_of_the_dtype(codec):
    same = EncoderDecoder.from_params(codec._model, codec.params, dtype='bfloat16')
    assert same.model_id == codec.model_id
    config = dataclasses.replace(codec.config, attention_heads=1)
    other = EncoderDecoder.from_params(Music2Latent(config), codec.params)
    assert other.model_id != codec.model_id
    zeros = jax.tree.map(jnp.zeros_like, codec.params)
    assert codec.with_params(zeros).model_id != codec.model_id


def test_too_short_audio_is_told(codec):
    with pytest.raises(InputError, match='5631 samples are too few to encode: 5632 at least'):
        codec.encode(np.zeros((1, 5631), np.float32))
    assert codec.encode(np.zeros((1, 5632), np.float32)).shape == (1, 8, 1)

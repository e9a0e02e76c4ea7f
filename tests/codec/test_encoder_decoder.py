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
    return EncoderDecoder(model, compute_once(lambda: model.init_params(jax.random.key(0))))


def test_latents_are_the_models_scaled_and_channel_major(codec):
    music = make_music(0.5, channels=2)
    latents = codec.encode(music)
    assert latents.shape == (2, 8, (22_050 - 1536) // 4096)
    spectrogram = to_spectrogram(jnp.asarray(music), codec.config.spectrogram)[:, :, :40]
    expected = codec._model.apply({'params': codec._params}, spectrogram, method='encode')
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


def test_long_audio_is_encoded_in_pieces_of_whole_frames(codec):
    fresh = codec.with_params(codec._params)
    fresh._latents_per_chunk = 2  # instead of a minute
    music = make_music(0.5)
    latents = fresh.encode(music)
    assert latents.shape == (1, 8, 5)
    second = codec.encode(music[:, 2 * 4096 : 4 * 4096 + 1536])
    np.testing.assert_allclose(latents[..., 2:4], second, atol=1e-4)
    assert fresh.decode(latents).shape == (1, 5 * 4096 + 1536)


def test_other_parameters_share_the_model(codec):
    zeros = jax.tree.map(jnp.zeros_like, codec._params)
    assert not np.any(codec.with_params(zeros).encode(make_music(0.5)))
    assert np.any(codec.encode(make_music(0.5)))


@pytest.mark.parametrize(
    ('waveform', 'message'),
    [
        (np.zeros(9000, np.float32), r'must be \[channels, samples\]'),
        (np.zeros((1, 5631), np.float32), '5631 samples are too few to encode: 5632 at least'),
        (np.full((1, 9000), np.nan, np.float32), 'NaN or infinite'),
    ],
)
def test_bad_audio_is_told(codec, waveform, message):
    with pytest.raises(InputError, match=message):
        codec.encode(waveform)

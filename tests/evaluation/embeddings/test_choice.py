import importlib.util

import numpy as np
import pytest

from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.evaluation.embeddings.choice import Embedding, default_names, open_embeddings
from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import Music2Latent
from tests.conftest import make_music
from tests.evaluation.embeddings.tiny_models import save_saved_model


@pytest.fixture(scope='module')
def codec(tiny_config, tiny_params):
    return EncoderDecoder.from_params(Music2Latent(tiny_config), tiny_params)


def test_the_encoder_gives_the_latents_of_the_mean_of_the_channels(codec):
    (encoder,) = open_embeddings(['encoder'], codec)
    stereo = make_music(1, channels=2)
    latents = codec.encode(codec.pad(np.mean(stereo, axis=0)))[0]
    embeddings = encoder.embed(stereo, 44_100)
    assert (encoder.name, embeddings.shape[1]) == ('encoder', codec.config.latent_channels)
    np.testing.assert_allclose(embeddings, latents.T, atol=1e-5)


def test_audio_is_resampled_to_the_rate_of_the_embedding():
    heard = []

    def listen(mono):
        heard.append(mono)
        return np.ones((1, 3), np.float32)

    tone = np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100).astype(np.float32)
    Embedding('listener', 'listener', 16_000, listen).embed(np.stack([tone, tone]), 44_100)
    wanted = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert heard[0].shape == (16_000,)
    assert heard[0].dtype == np.float32
    np.testing.assert_allclose(heard[0][1000:-1000], wanted[1000:-1000], atol=1e-3)


def test_models_of_a_path_are_named_by_their_file(tmp_path, codec):
    save_saved_model(tmp_path / 'mine')
    (mine,) = open_embeddings([f'{tmp_path}/mine:8000'], codec)
    assert (mine.name, mine.sample_rate) == ('mine', 8000)
    assert mine.embed(np.zeros((1, 4410), np.float32), 44_100).shape == (200, 4)


def test_the_default_is_what_is_there(monkeypatch, codec):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: object())
    assert default_names() == (['musicnn'], '')
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    names, left_out = default_names()
    assert names == []
    assert left_out.startswith(
        'no Fréchet and kernel distances: tensorflow, musicnn are not installed: pip install '
    )
    assert open_embeddings([], codec) == []


def test_what_is_asked_for_must_be_there(monkeypatch, codec):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(InputError, match='pip install --no-deps musicnn'):
        open_embeddings(['musicnn'], codec)


@pytest.mark.parametrize('name', ['vggish', 'model.onnx', 'model.onnx:', 'model.onnx:0', ':16000'])
def test_other_names_are_one_line(codec, name):
    with pytest.raises(InputError, match=f'--embeddings={name} is none of musicnn, .*PATH:16000'):
        open_embeddings([name], codec)


def test_a_name_given_twice_is_one_line(codec):
    with pytest.raises(InputError, match='encoder is there already'):
        open_embeddings(['encoder', 'encoder'], codec)

import logging
import pathlib

import numpy as np
import pytest
import soundfile

from m2l_jax.codec import weights
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.codec.weights import locate_weights, open_weights
from m2l_jax.configs import small
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.settings import build
from m2l_jax.model import ops
from m2l_jax.model.config import ModelConfig
from m2l_jax.torch_weights.conversion import save_torch_model
from tests.torch_weights.test_conversion import UNEVEN, random_params


@pytest.fixture
def assets(tmp_path, monkeypatch):
    """An empty folder in place of the package's own."""
    folder = tmp_path / 'assets'
    folder.mkdir()
    monkeypatch.setattr(weights, '_FOLDER', folder)
    return folder


def test_a_name_stands_for_the_packaged_model(assets):
    params = random_params(UNEVEN)
    save_torch_model(assets / 'small.safetensors', UNEVEN, params, storage='float16')
    codec = EncoderDecoder('small')
    assert codec.config == UNEVEN
    rounded = params['encoder']['gain'].astype(np.float16)
    np.testing.assert_array_equal(codec.params['encoder']['gain'], rounded.astype(np.float32))


def test_without_the_file_a_line_says_so(assets):
    with pytest.raises(InputError, match=r"comes without the model 'small': pass the folder of a"):
        EncoderDecoder('small')


def test_a_folder_of_the_same_name_needs_its_path(assets, tmp_path, monkeypatch, caplog):
    (assets / 'small.safetensors').touch()
    here = tmp_path / 'here'
    (here / 'small').mkdir(parents=True)
    monkeypatch.chdir(here)
    with caplog.at_level(logging.WARNING):
        assert locate_weights('small') == assets / 'small.safetensors'
    assert 'small is the model that comes with m2l_jax: ./small for that here' in caplog.text
    for path in ('./small', pathlib.Path('small'), str(here / 'small')):
        assert locate_weights(path).samefile('small')
        with pytest.raises(InputError, match='holds no checkpoints'):
            open_weights(path)


def test_the_shipped_model_is_what_its_config_says():
    assert weights.packaged_path('small').stat().st_size <= 30e6
    model, _ = open_weights('small')
    expected = build(ModelConfig, {**small.get_config().model, 'dtype': 'float32'})
    assert model.config == expected


def test_the_shipped_model_gives_the_same_on_every_machine():
    """Against one machine's figures."""
    time = np.arange(17_920) / 44_100
    tone = 0.3 * np.sin(2 * np.pi * 220 * time) * np.exp(-2 * time)
    codec = EncoderDecoder('small')
    latents = codec.encode(tone[None].astype(np.float32))
    expected = [-8.242526, 6.179123, -3.0172725, 0.6239262, -4.279861, -3.9606926]
    np.testing.assert_allclose(latents[0, :6, 1], expected, atol=1e-4)
    waveform = codec.decode(latents)
    expected = [-0.0961058, -0.0901114, -0.0837699, -0.0768833, -0.0693633, -0.0613191]
    np.testing.assert_allclose(waveform[0, 4000:4006], expected, atol=1e-4)
    np.testing.assert_allclose(np.sqrt(np.mean(waveform**2)), 0.1322174, atol=1e-4)


def test_trained_latents_keep_40_decibels_with_products_in_bfloat16(in_strips, monkeypatch):
    monkeypatch.setattr(ops, 'multiplies_bfloat16', lambda: True)
    music, rate = soundfile.read(weights._FOLDER / 'heldout' / 'greensleeves.ogg', dtype='float32')
    exact, rounded = (
        EncoderDecoder('small', dtype=dtype).encode(music.T[:1, rate : rate + rate // 4])
        for dtype in ('float32', 'bfloat16')
    )
    error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    assert 40 <= -20 * np.log10(error) < 70

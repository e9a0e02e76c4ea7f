import numpy as np
import pytest

from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.interface.errors import InputError
from m2l_jax.torch_weights.conversion import save_torch_model
from m2l_jax.torch_weights.released import fetch_released
from tests.torch_weights.test_conversion import UNEVEN, random_params

pytest.importorskip('torch', reason='PyTorch is missing: pip install -e .[torch]')


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('M2L_JAX_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


def test_fetched_and_converted_once_with_the_licence_told(tmp_path, cache, stand_in, caplog):
    params = random_params(UNEVEN)
    save_torch_model(tmp_path / 'a.pt', UNEVEN, params)
    stand_in.add('SonyCSLParis/music2latent', music2latent_pt=(tmp_path / 'a.pt').read_bytes())
    for _ in range(2):
        caplog.clear()
        codec = EncoderDecoder()
        np.testing.assert_array_equal(codec.params['encoder']['gain'], params['encoder']['gain'])
        assert 'SonyCSLParis/music2latent are CC BY-NC 4.0: not for commercial use' in caplog.text
    assert len([each for each in stand_in.asked if each.startswith('GET /cdn/')]) == 1
    assert fetch_released() == cache / 'music2latent.safetensors'
    caplog.clear()
    assert EncoderDecoder('hf://SonyCSLParis/music2latent').model_id == codec.model_id
    assert 'CC BY-NC 4.0' in caplog.text


def test_offline_it_says_what_to_do_in_a_line(cache, stand_in):
    stand_in.refused['/'] = 503
    message = (
        r'music2latent\.pt is not in the cache and cannot be fetched \(.*503.*\)\. Fetch '
        r'music2latent\.pt from http.*/SonyCSLParis/music2latent on .*, and pass the file as the ch'
    )
    with pytest.raises(InputError, match=message) as caught:
        EncoderDecoder()
    assert '\n' not in str(caught.value)
    assert not cache.exists()

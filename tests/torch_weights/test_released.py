import huggingface_hub
import numpy as np
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

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


def test_fetched_and_converted_once_with_the_licence_told(tmp_path, cache, monkeypatch, caplog):
    params = random_params(UNEVEN)
    save_torch_model(tmp_path / 'hub.safetensors', UNEVEN, params)
    calls = []

    def download(repository, name):
        calls.append((repository, name))
        return str(tmp_path / 'hub.safetensors')

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', download)
    for _ in range(2):
        codec = EncoderDecoder()
        np.testing.assert_array_equal(codec.params['encoder']['gain'], params['encoder']['gain'])
    assert calls == [('SonyCSLParis/music2latent', 'music2latent.pt')]
    assert fetch_released() == cache / 'music2latent.safetensors'
    assert 'CC BY-NC 4.0' in caplog.text


def test_offline_it_says_what_to_do_in_a_line(cache, monkeypatch):
    def download(repository, name):
        raise LocalEntryNotFoundError('no connection\nand a page of advice')

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', download)
    message = (
        r'cannot be fetched \(no connection\)\. Fetch music2latent\.pt from '
        r'https://huggingface\.co/SonyCSLParis/music2latent .* pass it as the checkpoint'
    )
    with pytest.raises(InputError, match=message) as caught:
        EncoderDecoder()
    assert '\n' not in str(caught.value)
    assert not cache.exists()

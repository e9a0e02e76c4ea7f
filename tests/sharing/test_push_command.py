"""Pushing a model by the command, and encoding with it by another one."""

import numpy as np
import pytest
import soundfile

from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.corpus.store import read_latents
from m2l_jax.torch_weights.conversion import save_torch_model
from tests.commands import tiny
from tests.commands.test_commands import assert_told, run
from tests.conftest import make_music
from tests.hub_stand_in import TOKEN, Hub
from tests.torch_weights.test_conversion import random_params


@pytest.fixture
def hub():
    with Hub() as hub:
        yield hub


def test_what_one_pushes_another_encodes_with(hub, tmp_path):
    save_torch_model(tmp_path / 'a.safetensors', tiny.MODEL, random_params(tiny.MODEL))
    (tmp_path / 'text.md').write_text('---\nlanguage: fr\n---\nOf bells.', 'utf-8-sig')
    flags = (f'--checkpoint={tmp_path / "a.safetensors"}', '--to=user/model', '--licence=mit')
    pushed = run(
        'push',
        *flags,
        '--data=Bells | gongs',
        f'--card={tmp_path / "text.md"}',
        '--private',
        **hub.environment(tmp_path / 'author'),
    )
    assert pushed.returncode == 0, pushed.stderr
    assert f'-> {hub.url}/user/model/commit/' in pushed.stdout
    assert TOKEN not in pushed.stdout + pushed.stderr
    card = hub.repositories['user/model'].files['README.md'].decode()
    assert 'license: mit' in card.splitlines()
    assert 'language: fr' in card
    assert 'Of bells.' in card.splitlines()
    assert r'| data | Bells \| gongs |' in card.splitlines()

    soundfile.write(tmp_path / 'a.wav', make_music(0.9).T, 44_100)
    source, output = tmp_path / 'a.wav', tmp_path / 'latents'
    flags = ('--checkpoint=hf://user/model', f'--input={source}', f'--output={output}')
    environment = hub.environment(tmp_path / 'user')
    encoded = run('encode', *flags, **environment)
    assert encoded.returncode == 0, encoded.stderr
    codec = EncoderDecoder(tmp_path / 'a.safetensors')
    stored = read_latents(next(output.rglob('a*.npz')))
    assert stored.model == codec.model_id
    np.testing.assert_allclose(stored.latents, codec.encode(source), atol=1e-3)

    again = (*flags[:2], f'--output={tmp_path / "again"}')
    offline = run('encode', *again, HF_HUB_OFFLINE='1', **environment)
    assert offline.returncode == 0, offline.stderr
    assert 'hf://user/model is read from the cache: HF_HUB_OFFLINE is set' in offline.stderr
    flags = ('--checkpoint=hf://user/other', *flags[1:])
    offline = run('encode', *flags, HF_HUB_OFFLINE='1', **environment)
    assert_told(offline, 'error: hf://user/other is not in the cache and cannot be fetched (HF_HUB')
    assert_told(run('encode', *flags, **environment), 'error: hf://user/other does not exist or is')


def test_a_text_that_is_missing_is_told(tmp_path):
    flags = ('--checkpoint=small', '--to=user/model', f'--card={tmp_path / "none.md"}')
    assert_told(run('push', *flags), 'none.md cannot be read (')

import dataclasses

import jax
import numpy as np
import pytest
import soundfile

from benchmarks import small_model
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.evaluation.metrics import METRICS
from m2l_jax.evaluation.reconstruction import reconstruct_file
from m2l_jax.interface.devices import compute_once
from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import Music2Latent
from tests.conftest import make_music


@pytest.fixture(scope='module')
def codec():
    model = Music2Latent(small_model.CONFIG)
    return EncoderDecoder.from_params(
        model, compute_once(lambda: model.init_params(jax.random.key(0)))
    )


def test_writes_audio_and_picture_under_the_files_name(codec, tmp_path):
    path = tmp_path / '01. a song.v2.wav'
    soundfile.write(path, make_music(0.5, channels=2).T, 44_100)
    figures = reconstruct_file(codec, path, tmp_path / 'out')
    written = {file.name for file in (tmp_path / 'out').iterdir()}
    assert written == {'01. a song.v2.wav', '01. a song.v2.png'}
    assert soundfile.info(tmp_path / 'out' / path.name).frames == 22_050
    assert set(figures) == {*METRICS, 'seconds', 'real_time_factor'}
    assert np.all(np.isfinite(list(figures.values())))


@pytest.mark.parametrize(('channels', 'lines'), [(1, 1), (2, 0)])
def test_mono_by_a_stereo_model_is_logged(tmp_path, caplog, channels, lines):
    config = dataclasses.replace(small_model.CONFIG, channels=4)
    stereo = EncoderDecoder.from_params(Music2Latent(config), small_model.random_params(config))
    path = tmp_path / 'a.wav'
    soundfile.write(path, make_music(0.5, channels=channels).T, 44_100)
    caplog.set_level('INFO')
    reconstruct_file(stereo, path, tmp_path / 'out')
    line = f'{path} is mono: this stereo model encodes it as both of its channels, and the mean of'
    assert sum(message.startswith(line) for message in caplog.messages) == lines
    assert soundfile.info(tmp_path / 'out' / 'a.wav').channels == channels


@pytest.mark.parametrize(
    ('waveform', 'message'),
    [
        (np.zeros(0), 'has 0 samples, too few to measure: 2048 at least'),
        (np.zeros(44_100), 'is silent: there is nothing to reconstruct'),
        (np.full(44_100, np.nan), 'holds NaN or infinite samples'),
    ],
)
def test_a_file_that_cannot_be_measured_is_named(codec, tmp_path, waveform, message):
    path = tmp_path / 'a.wav'
    soundfile.write(path, waveform, 44_100, subtype='FLOAT')
    with pytest.raises(InputError, match=rf'a\.wav {message}'):
        reconstruct_file(codec, path, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_the_input_is_never_overwritten(codec, tmp_path):
    path = tmp_path / 'a.wav'
    soundfile.write(path, make_music(0.5).T, 44_100)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r'a\.wav would be overwritten'):
        reconstruct_file(codec, path, tmp_path)
    assert path.read_bytes() == before


def test_audio_that_is_too_loud_is_blamed_and_not_the_model(codec, tmp_path, caplog):
    path = tmp_path / 'a.wav'
    soundfile.write(path, make_music(0.5).T * 1e38, 44_100, subtype='FLOAT')
    with pytest.raises(
        InputError, match=r'a\.wav is too loud: peak .*e\+3\d of full scale'
    ) as raised:
        reconstruct_file(codec, path, tmp_path / 'out')
    assert 'the model' not in str(raised.value)
    assert caplog.messages[0].startswith(f'{path}: too loud: peak ')
    with pytest.raises(InputError, match=r'a\.wav cannot be encoded, it is too loud: peak'):
        codec.encode(path)


def test_a_diverged_model_is_refused(codec, tmp_path):
    path = tmp_path / 'a.wav'
    soundfile.write(path, make_music(0.5).T, 44_100)
    broken = codec.with_params(jax.tree.map(lambda leaf: leaf * np.nan, codec.params))
    with pytest.raises(InputError, match='the model gives NaN: its training diverged'):
        reconstruct_file(broken, path, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()

import io
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from m2l_jax.codec.arrays import as_latents, as_waveform, as_whole
from m2l_jax.interface.errors import InputError
from tests.conftest import make_music


def test_arrays_become_rows_of_float32():
    for array in (np.ones(5), np.ones((1, 5), np.float16), jnp.ones(5, jnp.bfloat16)):
        waveform = as_waveform(array, 44_100)
        np.testing.assert_array_equal(waveform, np.ones((1, 5)))
        assert waveform.dtype == np.float32


def test_a_file_of_another_rate_is_resampled_and_says_so(tmp_path, caplog):
    soundfile.write(tmp_path / 'a.wav', make_music(0.5, 48_000, channels=2).T, 48_000)
    with caplog.at_level(logging.WARNING):
        waveform = as_waveform(tmp_path / 'a.wav', 44_100)
    assert waveform.shape == (2, 22_050)
    assert 'a.wav: resampled from 48000 to 44100 Hz' in caplog.text


@pytest.mark.parametrize(
    ('audio', 'message'),
    [
        (np.zeros((1, 2, 3)), r'audio has shape \(1, 2, 3\); it must be \[channels, samples\]'),
        (np.zeros(9000, np.int16), 'audio must be floating-point numbers, not int16: divide PCM'),
        (np.zeros((0, 9000)), r'audio has shape \(0, 9000\)'),
        (np.zeros((1, 0)), 'audio holds no samples'),
        (np.zeros((2, 2, 9000)), 'must be .channels, samples.: pass a batch to encode_batch'),
        (np.zeros((9000, 2)), r'\(9000, 2\) looks like .samples, channels.: pass audio.T'),
        ((np.zeros((9000, 2)), 44_100), 'looks like .samples, channels.: pass audio.T'),
        ((44_100, np.zeros(9000, np.int16)), 'floating-point numbers, not int16: divide PCM'),
        ((np.zeros(9000), True), 'cannot be made an array'),
        ((io.BytesIO(b'x'), 44_100), 'audio is a pair with a file: pass the file alone'),
        (('a.wav', 44_100), 'audio is a pair with a file: pass the file alone'),
        ((np.zeros(9000), 44_100.5), 'sample rate of 44100.5 Hz: pass a whole number'),
        ((np.zeros(9000), float('nan')), 'sample rate of nan Hz: pass a whole number'),
        ((np.zeros(9000), -1), 'sample rate of -1 Hz: pass a whole number'),
        ([[0.0, 1.0], [0.0]], 'audio cannot be made an array'),
        (['a.wav', 'b.wav'], 'audio is a list of files: pass it to encode_batch'),
        (np.full(9000, 1e300), 'audio holds NaN or infinite samples'),
        (None, 'audio is None'),
        (b'a.wav', r'audio is bytes: pass io.BytesIO\(content\), or the path as a str'),
        (io.BytesIO(), r'the open file holds nothing from where it is: call its seek\(0\) first'),
        (io.StringIO('RIFF'), "the open file gives no bytes: open it with mode 'rb'"),
        (io.BytesIO(b'no audio at all'), 'the open file cannot be read as audio'),
        (np.array([0, np.inf]), 'audio holds NaN or infinite samples'),
    ],
)
def test_bad_audio_is_told(audio, message):
    with pytest.raises(InputError, match=message):
        as_waveform(audio, 44_100)


@pytest.fixture
def stereo(tmp_path):
    """A file at 48 kHz and what it holds."""
    waveform = make_music(0.5, 48_000, channels=2)
    soundfile.write(tmp_path / 'a.wav', waveform.T, 48_000, subtype='FLOAT')
    return tmp_path / 'a.wav', waveform


def test_open_files_are_read_as_those_on_disk_are(stereo, caplog):
    path, _ = stereo
    expected = as_waveform(str(path), 44_100)
    caplog.clear()
    with open(path, 'rb') as file:
        np.testing.assert_array_equal(as_waveform(file, 44_100), expected)
    assert caplog.messages == [f'{path}: resampled from 48000 to 44100 Hz']
    np.testing.assert_array_equal(as_waveform(io.BytesIO(path.read_bytes()), 44_100), expected)
    assert caplog.messages[1:] == ['the open file: resampled from 48000 to 44100 Hz']


def test_a_file_opened_as_text_or_closed_is_told(stereo):
    path, _ = stereo
    with open(path) as file, pytest.raises(InputError, match=r"a.wav .*: open it with mode 'rb'"):
        as_waveform(file, 44_100)
    with pytest.raises(InputError, match=r'a.wav cannot be read'):
        as_waveform(file, 44_100)


def test_a_pair_with_its_rate_is_resampled_as_its_file_is(stereo, caplog):
    path, waveform = stereo
    expected = as_waveform(path, 44_100)
    zero_d = np.array(48_000)
    for pair in ((waveform, zero_d), (np.int64(48_000), waveform), [waveform, 48_000.0]):
        np.testing.assert_array_equal(as_waveform(pair, 44_100), expected)
    assert 'audio: resampled from 48000 to 44100 Hz' in caplog.text
    np.testing.assert_array_equal(as_waveform((waveform, 48_000), 48_000), waveform)
    mono = soundfile.read(io.BytesIO(_wav(waveform[0])))  # (samples, rate)
    np.testing.assert_array_equal(as_waveform(mono, 48_000), waveform[:1])


def _wav(samples):
    target = io.BytesIO()
    soundfile.write(target, samples, 48_000, 'FLOAT', format='WAV')
    return target.getvalue()


def test_arrays_of_every_layout_are_taken():
    music = make_music(0.2, channels=2)
    frozen = music.copy()
    frozen.setflags(write=False)
    for array in (music.tolist(), frozen, np.asfortranarray(music), music.T.copy().T):
        np.testing.assert_array_equal(as_waveform(array, 44_100), music)
    assert as_waveform([0.5, 0.25], 44_100).tolist() == [[0.5, 0.25]]  # no pair


def test_a_value_traced_by_jax_is_told():
    with pytest.raises(InputError, match='audio cannot be made an array'):
        jax.jit(lambda audio: as_waveform(audio, 44_100))(jnp.zeros(9000))


def test_numbers_are_whole_and_in_range():
    for value in (3, np.int64(3), np.uint8(3), np.array(3), jnp.int32(3)):
        assert as_whole('seed', value, 0, 3) == 3
    for value, message in [
        (2.0, 'seed=2.0 must be a whole number'),
        (True, 'seed=True must be a whole number'),
        (np.bool_(True), 'must be a whole number'),
        ('3', "seed='3' must be a whole number"),
        (None, 'seed=None must be a whole number'),
        (4, 'seed=4 must be from 0 to 3'),
        (-1, 'seed=-1 must be from 0 to 3'),
    ]:
        with pytest.raises(InputError, match=message):
            as_whole('seed', value, 0, 3)


@pytest.mark.parametrize(
    ('latents', 'message'),
    [
        (
            np.zeros((3, 8)),
            'has shape .3, 8.: each latent vector has 3 numbers, where',
        ),
        (np.zeros((8, 4)), 'frames come last in latents'),
        (np.zeros((2, 9000)), 'this looks like audio: encode it first'),
        (np.zeros((1, 32, 8)), 'these are features, which are not decoded'),
        (np.zeros((2, 1, 4, 8)), 'the array is a batch of 2: decode each by itself'),
        (np.zeros((1, 4, 0)), r'the array is empty: its array has shape \(1, 4, 0\)'),
        (np.zeros(4), r'shape \(4,\)'),
        (np.zeros((4, 2), np.int8), 'the array holds int8: latents are floating-point numbers'),
        (np.full((4, 2), np.nan), 'the array holds NaN or infinity'),
        (io.BytesIO(b'x'), 'latents is a file where an array is wanted: read it first'),
    ],
)
def test_bad_latents_are_told(latents, message):
    with pytest.raises(InputError, match=message):
        as_latents(latents, 4, 32)


def test_a_single_row_of_latents():
    assert as_latents(np.zeros((4, 2)), 4, 32).shape == (1, 4, 2)

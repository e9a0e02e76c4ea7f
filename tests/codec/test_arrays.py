import logging

import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from m2l_jax.codec.arrays import as_latents, as_waveform
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
        (np.array([0, np.inf]), 'audio holds NaN or infinite samples'),
    ],
)
def test_bad_audio_is_told(audio, message):
    with pytest.raises(InputError, match=message):
        as_waveform(audio, 44_100)


@pytest.mark.parametrize(
    ('latents', 'message'),
    [
        (np.zeros((1, 8)), r'shape \(1, 1, 8\); they must be \[audio channels, 4, frames\] or'),
        (np.zeros((1, 4, 0)), r'shape \(1, 4, 0\)'),
        (np.zeros(4), r'shape \(4,\)'),
        (np.zeros((4, 2), np.int8), 'latents must be floating-point numbers, not int8'),
        (np.full((4, 2), np.nan), 'latents hold NaN'),
    ],
)
def test_bad_latents_are_told(latents, message):
    with pytest.raises(InputError, match=message):
        as_latents(latents, 4)


def test_a_single_row_of_latents():
    assert as_latents(np.zeros((4, 2)), 4).shape == (1, 4, 2)

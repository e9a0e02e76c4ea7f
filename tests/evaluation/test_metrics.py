import numpy as np
import pytest

from m2l_jax.evaluation.metrics import log_spectral_distance, power_spectrogram_db, si_sdr
from m2l_jax.evaluation.report import draw_comparison
from m2l_jax.interface.errors import InputError
from tests.conftest import make_music


def test_si_sdr_of_known_noise_at_any_scale():
    random = np.random.default_rng(0)
    original = random.standard_normal((2, 200_000))
    noise = random.standard_normal((2, 200_000))
    assert si_sdr(original, original + 0.1 * noise) == pytest.approx(20, abs=0.05)
    assert si_sdr(original, 0.3 * (original + noise)) == pytest.approx(0, abs=0.05)
    assert si_sdr(original, 0 * original) == -np.inf
    assert si_sdr(original, original) > 250
    half_silent = original * [[1], [0]]
    assert si_sdr(half_silent, original + 0.1 * noise) == pytest.approx(20, abs=0.1)
    assert np.isnan(si_sdr(0 * original, original))


def test_log_spectral_distance_of_a_gain_is_the_gain():
    music = 10 * np.random.default_rng(0).standard_normal((1, 44_100))  # far above the floor
    assert log_spectral_distance(music, music) == 0
    assert log_spectral_distance(music, music / 10) == pytest.approx(20, abs=1e-6)


def test_a_full_scale_sine_is_at_0_db():
    sine = np.sin(2 * np.pi * 64 * np.arange(8192) / 2048)
    levels = power_spectrogram_db(sine)
    assert levels.shape == (13, 1025)
    np.testing.assert_allclose(levels[:, 64], 0, atol=1e-6)
    assert power_spectrogram_db(np.zeros(2048)).max() == -100


def test_signals_of_other_lengths_are_told():
    with pytest.raises(InputError, match='cannot be compared'):
        si_sdr(np.zeros((1, 4096)), np.zeros((1, 4095)))


def test_picture_is_written(tmp_path):
    music = make_music(1, channels=2)
    draw_comparison(tmp_path / 'new' / 'a.png', music, music / 2, 44_100, 'title')
    assert (tmp_path / 'new' / 'a.png').read_bytes().startswith(b'\x89PNG')

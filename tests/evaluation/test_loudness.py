import math

import numpy as np
import pytest

from m2l_jax.evaluation.listening.loudness import integrated_loudness, k_response
from tests.conftest import make_music

RATE = 48_000


def sine(hertz, seconds, rate=RATE, level=1.0):
    return level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)[None]


def test_weights_are_the_tables_of_the_recommendation():
    frequencies = np.linspace(0, 0.499, 500)
    delay = np.exp(-2j * np.pi * frequencies)
    expected = np.polyval([1.19839281085285, -2.69169618940638, 1.53512485958697], delay)
    expected /= np.polyval([0.73248077421585, -1.69065929318241, 1], delay)
    expected *= (1 - delay) ** 2 / np.polyval([0.99007225036621, -1.99004745483398, 1], delay)
    np.testing.assert_allclose(k_response(frequencies, RATE), expected, atol=1e-10)


@pytest.mark.parametrize(('rate', 'tolerance'), [(16_000, 0.05), (44_100, 0.01), (48_000, 0.001)])
def test_a_full_scale_sine_near_1_khz_is_at_minus_3(rate, tolerance):
    assert integrated_loudness(sine(997, 3, rate), rate) == pytest.approx(-3.01, abs=tolerance)


def test_channels_add_and_levels_scale():
    tone = sine(997, 3)
    loudness = integrated_loudness(tone, RATE)
    both = integrated_loudness(np.concatenate([tone, tone]), RATE)
    assert both - loudness == pytest.approx(10 * math.log10(2), abs=1e-6)
    quiet = integrated_loudness(0.1 * tone, RATE)
    assert quiet - loudness == pytest.approx(-20, abs=1e-6)


@pytest.mark.parametrize('level', [0.0, 1e-5, 0.1])
def test_quiet_parts_do_not_count(level):
    """Below -70 LUFS, and 10 LU below the mean: the result is nearly that of the loud part."""
    tone = np.concatenate([sine(997, 20), sine(997, 20, level=level)], axis=1)
    assert integrated_loudness(tone, RATE) == pytest.approx(-3.01, abs=0.05)


def test_parts_above_the_gates_count():
    tone = np.concatenate([sine(997, 20), sine(997, 20, level=0.5)], axis=1)
    expected = -3.01 + 10 * math.log10((1 + 0.25) / 2)
    assert integrated_loudness(tone, RATE) == pytest.approx(expected, abs=0.05)


def test_a_short_signal_is_one_block():
    assert integrated_loudness(sine(997, 0.2), RATE) == pytest.approx(-3.01, abs=0.05)


def test_silence_has_none():
    assert integrated_loudness(np.zeros((2, RATE)), RATE) == -math.inf


def test_pyloudnorm_measures_the_same():
    pyloudnorm = pytest.importorskip('pyloudnorm', reason='pyloudnorm is not installed')
    for seed, rate in enumerate((44_100, 48_000, 22_050)):
        music = make_music(3, rate, channels=2, seed=seed)
        meter = pyloudnorm.Meter(rate, filter_class='DeMan')
        expected = meter.integrated_loudness(music.T.astype(np.float64))
        assert integrated_loudness(music, rate) == pytest.approx(expected, abs=1e-4)

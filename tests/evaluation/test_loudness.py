import math

import numpy as np
import pytest

from m2l_jax.evaluation.loudness import integrated_loudness

RATE = 48_000


def sine(hertz, seconds, rate=RATE, level=1.0):
    return level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)[None]


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

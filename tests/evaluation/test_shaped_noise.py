import numpy as np
import pytest

from m2l_jax.evaluation.metrics import average_power_spectrum, measure
from m2l_jax.evaluation.shaped_noise import shaped_noise
from tests.conftest import make_music


@pytest.fixture(scope='module')
def clip():
    """Two channels of other music, one of them far below the other."""
    return np.concatenate([make_music(3, seed=1), 0.1 * make_music(3, seed=2)])


def test_noise_has_the_average_spectrum_of_each_channel(clip):
    noise = shaped_noise(clip)
    assert (noise.shape, noise.dtype) == (clip.shape, np.float32)
    wanted, spectrum = average_power_spectrum(clip), average_power_spectrum(noise)
    assert np.all(np.sum(np.abs(spectrum - wanted), axis=1) < 0.08 * np.sum(wanted, axis=1))
    assert np.all(np.median(np.abs(spectrum / wanted - 1), axis=1) < 0.03)


def test_noise_is_gaussian_and_changes_only_by_chance_in_time(clip):
    noise = shaped_noise(clip).astype(np.float64)
    standard = noise / np.std(noise, axis=1, keepdims=True)
    np.testing.assert_allclose(np.mean(standard**4, axis=1), 3, atol=0.5)
    thirds = np.stack(np.split(noise, 3, axis=1))
    levels = np.sqrt(np.mean(thirds**2, axis=2))
    assert np.all(np.max(levels, axis=0) < 1.3 * np.min(levels, axis=0))
    assert abs(np.corrcoef(noise)[0, 1]) < 0.1  # channels are independent


def test_noise_is_always_the_same_and_far_from_the_clip(clip):
    np.testing.assert_array_equal(shaped_noise(clip), shaped_noise(clip))
    figures = measure(clip, shaped_noise(clip), 44_100)
    assert figures['si_sdr'] < -20
    assert figures['mel'] > 0.2


def test_a_silent_channel_stays_silent():
    noise = shaped_noise(np.concatenate([make_music(1), np.zeros((1, 44_100))]))
    assert np.any(noise[0])
    np.testing.assert_array_equal(noise[1], 0)

import numpy as np
import pytest

from m2l_jax.evaluation import stereo_image
from m2l_jax.evaluation.stereo_image import coherence_bias, level_difference_error
from m2l_jax.interface.errors import InputError
from tests.conftest import make_music

RATE = 44_100


@pytest.fixture(scope='module')
def noise():
    return 0.1 * np.random.default_rng(0).standard_normal((2, 3 * RATE))


def same(signal, gain_db=0.0):
    """Both channels alike, the right one quieter."""
    return np.stack([signal, signal * 10 ** (-gain_db / 20)])


@pytest.mark.parametrize('gain', [6.0, -13.5])
def test_panning_changes_the_level_difference_alone(noise, gain):
    centre, panned = same(noise[0]), same(noise[0], gain)
    assert level_difference_error(centre, panned, RATE) == pytest.approx(abs(gain), abs=1e-6)
    assert level_difference_error(panned, centre, RATE) == pytest.approx(abs(gain), abs=1e-6)
    assert coherence_bias(centre, panned, RATE) == pytest.approx(0, abs=1e-9)


def test_level_differences_are_limited(noise):
    """To 30 dB: a silent right channel, and one of 50 dB less, are the same."""
    silent = noise * [[1], [0]]
    assert level_difference_error(same(noise[0]), silent, RATE) == pytest.approx(30)
    assert level_difference_error(same(noise[0], 50), silent, RATE) == 0
    assert level_difference_error(silent, silent[::-1], RATE) == pytest.approx(60)


def test_equal_channels_are_coherent_and_independent_ones_are_not(noise):
    sums = stereo_image._sum(same(noise[0]), RATE)
    np.testing.assert_allclose(sums.coherence(), 1)
    independent = stereo_image._sum(noise, RATE).coherence()
    assert independent.mean() < 0.1
    assert coherence_bias(same(noise[0]), noise, RATE) == pytest.approx(
        independent.mean() - 1, abs=1e-9
    )


@pytest.mark.parametrize('share', [0.25, 0.8])
def test_a_common_part_gives_its_share(noise, share):
    """Channels a·c + b·n of a common and independent noise: coherence a²/(a² + b²)."""
    random = np.random.default_rng(1)
    common = 0.1 * random.standard_normal(30 * RATE)
    own = 0.1 * random.standard_normal((2, 30 * RATE))
    mixed = np.sqrt(share) * common + np.sqrt(1 - share) * own
    sums = stereo_image._sum(mixed, RATE)
    assert sums.coherence()[:, 5:].mean() == pytest.approx(share, abs=0.03)


def test_a_delay_of_phase_keeps_coherence(noise):
    """Coherence is of magnitudes: opposite channels are coherent too."""
    opposite = np.stack([noise[0], -noise[0]])
    assert coherence_bias(same(noise[0]), opposite, RATE) == pytest.approx(0, abs=1e-9)


def test_sums_are_those_of_a_slow_loop():
    """A segment and a part of one, a frame and bin at a time."""
    music = make_music(0.55, channels=2).astype(np.float64)
    sums = stereo_image._sum(music, RATE)
    window = np.hanning(2049)[:-1]
    frames = 1 + (music.shape[1] - 2048) // 512
    assert 32 < frames < 64
    filters = stereo_image.mel_filters(RATE, bands=20)
    for segment, places in enumerate((range(32), range(32, frames))):
        powers, products = np.zeros((2, 20)), np.zeros(20, complex)
        for frame in places:
            left, right = (np.fft.rfft(window * s[frame * 512 : frame * 512 + 2048]) for s in music)
            powers += [abs(left) ** 2 @ filters, abs(right) ** 2 @ filters]
            products += (left * right.conj()) @ filters
        np.testing.assert_allclose(sums.powers[:, segment], powers, rtol=1e-9)
        np.testing.assert_allclose(sums.products[segment], products, rtol=1e-9)


def test_quiet_parts_do_not_count(noise):
    """A band 60 dB below the loudest, and silent segments."""
    half = same(noise[0])
    half[:, RATE:] = 0
    wrong = np.array(half)
    wrong[1, 2 * RATE :] = noise[1, 2 * RATE :]
    assert level_difference_error(half, wrong, RATE) == 0


def test_only_stereo_has_an_image(noise):
    for signal in (noise[:1], np.tile(noise, (2, 1)), 0 * noise):
        assert np.isnan(coherence_bias(signal, signal, RATE))
        assert np.isnan(level_difference_error(signal, signal, RATE))
    with pytest.raises(InputError, match='cannot be compared'):
        coherence_bias(noise, noise[:, 1:], RATE)

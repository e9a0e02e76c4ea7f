import tracemalloc

import numpy as np
import pytest

from m2l_jax.evaluation import metrics, spectra
from m2l_jax.evaluation.baselines import shaped_noise
from m2l_jax.evaluation.loudness import loudness_bias
from m2l_jax.evaluation.metrics import (
    log_spectral_distance,
    measure,
    mel_distance,
    multi_resolution_stft_distance,
    si_sdr,
    snr,
    spectral_centroid_bias,
)
from m2l_jax.evaluation.spectra import average_power_spectrum, mel_filters, power_spectrogram_db
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


def test_snr_of_known_noise():
    music = make_music(0.3, channels=2).astype(np.float64)
    noise = np.random.default_rng(0).standard_normal(music.shape)
    noise *= np.linalg.norm(music, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1)[:, None]
    assert snr(music, music + 0.1 * noise) == pytest.approx(20)
    assert snr(music, music) == np.inf
    assert snr(music, 0 * music) == pytest.approx(0)
    assert snr(music * [[1], [0]], music * [[1.1], [0]]) == pytest.approx(20)
    assert np.isnan(snr(0 * music, music))


def test_centroid_of_sines_is_their_frequency():
    time = np.arange(44_100) / 44_100
    low, high = (np.sin(2 * np.pi * frequency * time)[None] for frequency in (1000, 4000))
    assert spectral_centroid_bias(low, high, 44_100) == pytest.approx(3000, abs=2)
    assert spectral_centroid_bias(high, 0.1 * low, 44_100) == pytest.approx(-3000, abs=2)
    assert spectral_centroid_bias(low, low, 44_100) == 0
    assert np.isnan(spectral_centroid_bias(low, 0 * low, 44_100))


def test_loudness_of_a_gain_is_the_gain():
    music = make_music(1.0, channels=2)
    assert loudness_bias(music, music / 2, 44_100) == pytest.approx(-6.0206, abs=1e-3)
    assert np.isnan(loudness_bias(music, 0 * music, 44_100))
    assert np.isnan(loudness_bias(np.tile(music, (3, 1)), np.tile(music, (3, 1)), 44_100))


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


def test_multi_resolution_stft_distance_of_a_gain_has_a_closed_form():
    """With Ŝ = g·S: ‖S - g·S‖/‖S‖ = |1 - g| and |ln S - ln g·S| = |ln g|, above the floor."""
    noise = np.random.default_rng(0).standard_normal((2, 22_050))
    loud = 1e4 * noise  # so that no bin is at the floor
    assert multi_resolution_stft_distance(loud, loud) == 0
    for gain in (2, 0.25):
        expected = abs(1 - gain) + abs(np.log(gain))
        assert multi_resolution_stft_distance(loud, gain * loud) == pytest.approx(expected)
    # Each channel counts alike, however loud it is.
    estimate = noise * [[1e4], [2e6]]
    original = noise * [[1e4], [1e6]]
    assert multi_resolution_stft_distance(original, estimate) == pytest.approx((1 + np.log(2)) / 2)


def test_multi_resolution_stft_distance_of_silence_is_finite():
    silence = np.zeros((1, 4096))
    music = make_music(4096 / 44_100)
    assert multi_resolution_stft_distance(silence, silence) == 0
    assert 1 < multi_resolution_stft_distance(music, silence) < np.inf
    assert 1 < multi_resolution_stft_distance(silence, music) < np.inf
    # All that is below the floor counts as the floor.
    assert multi_resolution_stft_distance(silence, silence + 1e-9) == 0


def test_multi_resolution_stft_distance_hears_a_gain_only_where_there_is_sound():
    sine = np.cos(2 * np.pi * np.arange(44_100) / 16)
    distance = multi_resolution_stft_distance(sine, 2 * sine)
    assert 1 < distance < 1 + np.log(2)  # far from the sine's frequency both are at the floor
    assert multi_resolution_stft_distance(sine, -sine) == 0  # magnitudes have no sign


def test_mel_filters_are_those_that_librosa_makes():
    """Figures of `librosa.filters.mel(sr=44100, n_fft=2048, n_mels=80)` 0.11, its defaults."""
    filters = mel_filters(44_100)
    assert filters.shape == (1025, 80)
    np.testing.assert_allclose(
        filters[:5, 0], [0, 0.00883217, 0.01766435, 0.01400856, 0.00517638], atol=1e-8
    )
    assert list(np.argmax(filters, axis=0)[[0, 10, 40, 79]]) == [2, 25, 134, 973]
    heights = [0.01766435, 0.01827896, 0.00640584, 0.0009336]
    np.testing.assert_allclose(np.max(filters, axis=0)[[0, 10, 40, 79]], heights, atol=1e-8)
    assert np.sum(filters) == pytest.approx(3.7142792, rel=1e-6)
    np.testing.assert_allclose(filters[1020:, 79][[0, 3]], [7.3705087e-05, 1.8426272e-05], 1e-4)
    # The same bands in Hz, relative to its own half rate, at another rate.
    assert np.argmax(mel_filters(16_000), axis=0)[-1] == pytest.approx(1025 * 7750 / 8000, abs=8)


def test_mel_distance_of_a_gain_is_its_logarithm():
    music = 10 * np.random.default_rng(0).standard_normal((2, 44_100))  # far above the floor
    assert mel_distance(music, music, 44_100) == 0
    assert mel_distance(music, 10 * music, 44_100) == pytest.approx(1, rel=1e-9)
    assert mel_distance(music, 10**-0.05 * music, 44_100) == pytest.approx(0.05, rel=1e-9)


def test_mel_distance_of_silence_is_finite():
    silence, music = np.zeros((1, 4096)), make_music(4096 / 44_100)
    assert mel_distance(silence, silence + 1e-9, 44_100) == 0  # both below the floor
    assert 1 < mel_distance(music, silence, 44_100) < 5
    assert mel_distance(silence, music, 44_100) == mel_distance(music, silence, 44_100)


def test_average_power_spectrum_of_white_noise_is_flat():
    noise = np.random.default_rng(0).standard_normal((2, 441_000)) * [[1], [3]]
    spectrum = average_power_spectrum(noise)
    assert spectrum.shape == (2, 1025)
    window = np.hanning(2049)[:-1]
    np.testing.assert_allclose(np.mean(spectrum, axis=1) / np.sum(window**2), [1, 9], rtol=0.01)


def test_signals_of_other_lengths_are_refused():
    with pytest.raises(InputError, match='cannot be compared'):
        si_sdr(np.zeros((1, 4096)), np.zeros((1, 4095)))
    with pytest.raises(InputError, match='with at least 2048 samples'):
        multi_resolution_stft_distance(np.ones((1, 2047)), np.ones((1, 2047)))


@pytest.mark.parametrize('samples', [2048, 2049, 30_000])
@pytest.mark.parametrize('values', [1, 5000, 1 << 20])
def test_blocks_do_not_show(samples, values, monkeypatch):
    """Against the whole signals at once, as the figures are defined."""
    random = np.random.default_rng(samples)
    original = random.standard_normal((2, samples)).astype(np.float32) + 1
    estimate = original + 0.3 * random.standard_normal((2, samples)).astype(np.float32)
    monkeypatch.setattr(spectra, 'BLOCK_VALUES', values)

    def magnitudes(signal, window, hop):
        frames = np.lib.stride_tricks.sliding_window_view(signal, len(window), axis=-1)
        return np.abs(np.fft.rfft(frames[:, ::hop] * window))

    pair = [signal.astype(np.float64) for signal in (original, estimate)]
    x, y = (signal - signal.mean(axis=1, keepdims=True) for signal in pair)
    target = x * (np.sum(x * y, axis=1) / np.sum(x * x, axis=1))[:, None]
    ratio = np.sum(target**2, axis=1) / np.sum((y - target) ** 2, axis=1)
    assert si_sdr(original, estimate) == pytest.approx(np.mean(10 * np.log10(ratio)), rel=1e-9)

    hann = np.hanning(2049)[:-1]
    levels = [20 * np.log10(np.maximum(magnitudes(s, hann, 512) / 512, 1e-5)) for s in pair]
    distance = np.mean(np.sqrt(np.mean((levels[0] - levels[1]) ** 2, axis=-1)))
    assert log_spectral_distance(original, estimate) == pytest.approx(distance, rel=1e-9)
    np.testing.assert_allclose(power_spectrogram_db(original), levels[0], rtol=0, atol=1e-9)

    distances = []
    for fft, hop, window in ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)):
        padded = np.pad(np.hanning(window + 1)[:-1], (fft - window) // 2)
        ours, theirs = (
            np.maximum(
                magnitudes(np.pad(s, [(0, 0), (fft // 2, fft // 2)], 'reflect'), padded, hop),
                np.sqrt(1e-7),
            )
            for s in pair
        )
        norms = [np.sqrt(np.sum(s**2, axis=(1, 2))) for s in (ours - theirs, ours)]
        distances.append(np.mean(norms[0] / norms[1]) + np.mean(np.abs(np.log(ours / theirs))))
    figure = multi_resolution_stft_distance(original, estimate)
    assert figure == pytest.approx(np.mean(distances), rel=1e-9)

    def log_mel(spectrum):
        """Filter by filter and bin by bin."""

        def hertz(mel):
            return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)

        highest = 15 + 27 * np.log(22.05) / np.log(6.4)
        ends = [hertz(number * highest / 81) for number in range(82)]
        bands = []
        for low, top, high in zip(ends, ends[1:], ends[2:], strict=False):
            band = np.zeros(spectrum.shape[:-1])
            for number in range(1025):
                frequency = number * 44_100 / 2048
                rise, fall = (frequency - low) / (top - low), (high - frequency) / (high - top)
                band += max(0, min(rise, fall)) * 2 / (high - low) * spectrum[..., number]
            bands.append(np.log10(np.maximum(band, 1e-5)))
        return np.stack(bands)

    levels = [log_mel(magnitudes(s, hann, 512)) for s in pair]
    distance = np.mean(np.abs(levels[0] - levels[1]))
    assert mel_distance(original, estimate, 44_100) == pytest.approx(distance, rel=1e-9)

    spectrum = np.mean(magnitudes(pair[0], hann, 512) ** 2, axis=-2)
    np.testing.assert_allclose(average_power_spectrum(original), spectrum, rtol=1e-9)


def test_a_long_signal_takes_no_more_memory_than_a_short_one(monkeypatch):
    monkeypatch.setattr(spectra, 'BLOCK_VALUES', 1 << 16)

    def peak(seconds):
        music = np.random.default_rng(0).standard_normal((2, seconds * 44_100), np.float32)
        tracemalloc.start()
        try:
            metrics.measure(music, music / 2, 44_100)
            return tracemalloc.get_traced_memory()[1] - music.nbytes  # that of the estimate
        finally:
            tracemalloc.stop()

    assert peak(8) < 1.2 * peak(2) < 10e6


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

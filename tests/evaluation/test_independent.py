"""Each metric beside another implementation of it, on pairs of signals made at random."""

import numpy as np
import pytest
import scipy.signal

from m2l_jax.evaluation.loudness import loudness_bias
from m2l_jax.evaluation.metrics import (
    log_spectral_distance,
    mel_distance,
    multi_resolution_stft_distance,
    si_sdr,
    snr,
    spectral_centroid_bias,
)

RATE = 48_000
PAIRS = 50

# Of ITU-R BS.1770-4, tables 1 and 2, at 48 kHz.
SHELF = [1.53512485958697, -2.69169618940638, 1.19839281085285]
SHELF += [1, -1.69065929318241, 0.73248077421585]
HIGH_PASS = [1, -2, 1, 1, -1.99004745483398, 0.99007225036621]


@pytest.fixture(scope='module')
def pairs():
    """Filtered noise in stereo, and the same at another level with other noise, 0.5 s each."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(PAIRS):
        white = random.standard_normal((2, 2, RATE // 2))
        coloured = scipy.signal.lfilter([1], [1, -random.uniform(-0.9, 0.9)], white)
        original = 0.1 * coloured[0]
        made.append((original, random.uniform(0.3, 2) * original + 0.05 * coloured[1]))
    return made


def agree(ours, theirs, pairs):
    figures = np.array([[ours(*pair), theirs(*pair)] for pair in pairs])
    assert len(np.unique(figures[:, 0])) == PAIRS
    np.testing.assert_allclose(figures[:, 0], figures[:, 1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('name', ['si_sdr', 'snr', 'mr_stft'])
def test_metrics_are_those_of_auraloss(name, pairs):
    torch = pytest.importorskip('torch', reason='PyTorch is missing: pip install -e .[torch]')
    auraloss = pytest.importorskip('auraloss', reason='pip install auraloss')
    ours, loss, sign = {
        'si_sdr': (si_sdr, auraloss.time.SISDRLoss(), -1),
        'snr': (snr, auraloss.time.SNRLoss(zero_mean=False), -1),
        'mr_stft': (multi_resolution_stft_distance, auraloss.freq.MultiResolutionSTFTLoss(), 1),
    }[name]

    def theirs(original, estimate):
        """The mean over channels, each as a batch of its own."""
        x, y = (torch.from_numpy(signal)[:, None, None] for signal in (original, estimate))
        return np.mean([sign * float(loss(b, a)) for a, b in zip(x, y, strict=True)])

    agree(ours, theirs, [[signal[:, :6000] for signal in pair] for pair in pairs])  # quick


def test_a_scaled_copy_has_an_si_sdr_above_100_db(pairs):
    assert all(si_sdr(original, -0.3 * original) > 100 for original, _ in pairs)


def spectrogram(waveform):
    """Magnitudes by SciPy, `[channels, 1025, T]`, 1 for a full-scale sine."""
    options = {'nperseg': 2048, 'noverlap': 1536, 'boundary': None, 'padded': False}
    return 2 * np.abs(scipy.signal.stft(waveform, window='hann', **options)[2])


def test_the_log_spectral_distance_is_that_of_scipys_spectrograms(pairs):
    def theirs(*pair):
        levels = [20 * np.log10(np.maximum(spectrogram(each), 1e-5)) for each in pair]
        return np.mean(np.sqrt(np.mean((levels[0] - levels[1]) ** 2, axis=1)))

    agree(log_spectral_distance, theirs, pairs)


def test_the_mel_distance_is_that_of_librosas_mel_spectrograms(pairs):
    librosa = pytest.importorskip('librosa', reason='pip install librosa')
    options = {'sr': RATE, 'n_fft': 2048, 'hop_length': 512, 'n_mels': 80}
    options |= {'center': False, 'power': 1}

    def theirs(*pair):
        mels = [librosa.feature.melspectrogram(y=each, **options) for each in pair]
        levels = [np.log10(np.maximum(each, 1e-5)) for each in mels]
        return np.mean(np.abs(levels[0] - levels[1]))

    agree(lambda *pair: mel_distance(*pair, RATE), theirs, pairs)


def test_the_centroid_is_that_of_scipys_average_spectrum(pairs):
    def theirs(*pair):
        means = [np.sqrt(np.mean(spectrogram(each) ** 2, axis=-1)) for each in pair]
        frequencies = np.fft.rfftfreq(2048, 1 / RATE)
        before, after = (np.average([frequencies] * 2, axis=1, weights=each) for each in means)
        return np.mean(after - before)

    agree(lambda *pair: spectral_centroid_bias(*pair, RATE), theirs, pairs)


def test_the_loudness_is_that_of_the_recommendations_filters(pairs):
    def loudness(waveform):
        """Loudness of blocks of 0.4 s, three quarters shared, gated at -70 LUFS and -10 LU."""
        weighted = scipy.signal.sosfilt([SHELF, HIGH_PASS], waveform)
        starts = range(0, waveform.shape[1] - 19_200 + 1, 4800)
        powers = [np.sum(np.mean(weighted[:, s : s + 19_200] ** 2, axis=1)) for s in starts]
        levels = -0.691 + 10 * np.log10(powers)
        gate = -0.691 + 10 * np.log10(np.mean(np.array(powers)[levels > -70])) - 10
        return -0.691 + 10 * np.log10(np.mean(np.array(powers)[levels > max(gate, -70)]))

    def theirs(original, estimate):
        return loudness(estimate) - loudness(original)

    agree(lambda *pair: loudness_bias(*pair, RATE), theirs, pairs)

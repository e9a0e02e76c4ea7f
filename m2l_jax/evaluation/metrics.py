"""How close a reconstruction is to its original. NumPy, float64, one figure a pair of signals."""

from collections.abc import Sequence

import numpy as np

from m2l_jax.interface.errors import InputError

LEAST_SAMPLES = _WINDOW = 2048
_HOP = 512
_POWER_FLOOR = 1e-10  # -100 dB: digital silence counts as this, not as minus infinity

# (FFT, hop, window) and floor of the multi-resolution distance: Yamamoto et al. 2020, table 1, and
# its authors' code.
_RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
_STFT_POWER_FLOOR = 1e-7


def measure(original: np.ndarray, estimate: np.ndarray) -> dict[str, float]:
    """`si_sdr`, `lsd` and `mr_stft` of `[channels, samples]`; see the functions below."""
    return {
        'si_sdr': si_sdr(original, estimate),
        'lsd': log_spectral_distance(original, estimate),
        'mr_stft': multi_resolution_stft_distance(original, estimate),
    }


def mean_figures(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each figure over clips."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def si_sdr(original: np.ndarray, estimate: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019), higher is better.

    Args:
      original, estimate: `[channels, samples]`, the same shape.

    Returns:
      The mean over the channels in which the original has sound; -inf where the estimate is silent
      in one of them, nan if the original is silent in all.
    """
    original, estimate = _as_pair(original, estimate)
    original = original - original.mean(axis=-1, keepdims=True)
    estimate = estimate - estimate.mean(axis=-1, keepdims=True)
    energy = np.sum(original**2, axis=-1)
    sounding = energy > 0
    if not np.any(sounding):
        return float('nan')
    original, estimate, energy = original[sounding], estimate[sounding], energy[sounding]
    target = original * (np.sum(original * estimate, axis=-1) / energy)[:, None]
    signal, distortion = (np.sum(part**2, axis=-1) for part in (target, estimate - target))
    with np.errstate(divide='ignore', invalid='ignore'):
        # A silent estimate is all distortion, also where both sums are 0.
        ratios = np.where(signal > 0, 10 * np.log10(signal) - 10 * np.log10(distortion), -np.inf)
    return float(np.mean(ratios))


def log_spectral_distance(original: np.ndarray, estimate: np.ndarray) -> float:
    """Log-spectral distance in dB, lower is better.

    Root mean square over frequency of the difference of the two power spectra in dB (Hann 2048,
    hop 512, floor -100 dB), mean over time and channels.

    Args:
      original, estimate: `[..., samples]`, the same shape, at least 2048 samples.
    """
    original, estimate = _as_pair(original, estimate)
    difference = power_spectrogram_db(original) - power_spectrogram_db(estimate)
    return float(np.mean(np.sqrt(np.mean(difference**2, axis=-1))))


def power_spectrogram_db(waveform: np.ndarray) -> np.ndarray:
    """Power in dB relative to a full-scale sine, floored: `[..., samples]` to `[..., T, 1025]`."""
    window = _hann(_WINDOW)
    power = _stft_power(waveform, window, _HOP) / (window.sum() / 2) ** 2
    return 10 * np.log10(np.maximum(power, _POWER_FLOOR))


def multi_resolution_stft_distance(original: np.ndarray, estimate: np.ndarray) -> float:
    """Distance of magnitude spectrograms at three resolutions, lower is better, 0 for equals.

    Yamamoto et al. 2020 (Parallel WaveGAN, arXiv 1910.11480), section 2.2 and table 1; also the
    defaults of auraloss's `MultiResolutionSTFTLoss` (Steinmetz & Reiss 2020). At each resolution,
    with S the original's magnitudes and Ŝ the estimate's,

        ‖S - Ŝ‖ / ‖S‖  +  mean |ln S - ln Ŝ|

    (spectral convergence, Frobenius norms, and log magnitude). FFTs of 1024, 2048 and 512 samples,
    Hann windows of 600, 1200 and 240 in their middle, hops of 120, 240 and 50; frames centred on
    the signal, which is mirrored at its ends. Magnitudes are not normalised and at least √1e-7, so
    that silence has a logarithm. Those figures were chosen at 24 kHz and are used at any rate.

    Args:
      original, estimate: `[..., samples]`, the same shape, at least 2048 samples.

    Returns:
      The mean over resolutions and channels.
    """
    original, estimate = _as_pair(original, estimate)
    distances = []
    for fft, hop, window in _RESOLUTIONS:
        reference, other = (
            _stft_magnitudes(signal, fft, hop, window) for signal in (original, estimate)
        )
        convergence = _norm(reference - other) / _norm(reference)
        distances.append(np.mean(convergence) + np.mean(np.abs(np.log(reference / other))))
    return float(np.mean(distances))


def _stft_magnitudes(waveform: np.ndarray, fft: int, hop: int, window: int) -> np.ndarray:
    """`[..., samples]` to floored magnitudes `[..., T, fft // 2 + 1]` of centred frames."""
    ends = [(0, 0)] * (waveform.ndim - 1) + [(fft // 2, fft // 2)]
    padded_window = np.pad(_hann(window), (fft - window) // 2)
    power = _stft_power(np.pad(waveform, ends, mode='reflect'), padded_window, hop)
    return np.sqrt(np.maximum(power, _STFT_POWER_FLOOR))


def _stft_power(waveform: np.ndarray, window: np.ndarray, hop: int) -> np.ndarray:
    """|STFT|², `[..., samples]` to `[..., T, len(window) // 2 + 1]`."""
    frames = np.lib.stride_tricks.sliding_window_view(waveform, len(window), axis=-1)
    return np.abs(np.fft.rfft(frames[..., ::hop, :] * window)) ** 2


def _hann(samples: int) -> np.ndarray:
    """The periodic Hann window."""
    return np.hanning(samples + 1)[:-1]


def _norm(spectrogram: np.ndarray) -> np.ndarray:
    """The Frobenius norm of each `[T, F]`."""
    return np.sqrt(np.sum(spectrogram**2, axis=(-2, -1)))


def _as_pair(original: np.ndarray, estimate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if original.shape != estimate.shape or original.shape[-1] < _WINDOW:
        raise InputError(
            f'signals of shapes {original.shape} and {estimate.shape} cannot be compared: '
            f'they must be the same, with at least {_WINDOW} samples'
        )
    return original.astype(np.float64), estimate.astype(np.float64)

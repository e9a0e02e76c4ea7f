"""How close a reconstruction is to its original. NumPy, float64, one figure a pair of signals."""

import numpy as np

from m2l_jax.interface.errors import InputError

LEAST_SAMPLES = _WINDOW = 2048
_HOP = 512
_POWER_FLOOR = 1e-10  # -100 dB: digital silence counts as this, not as minus infinity


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
    window = np.hanning(_WINDOW + 1)[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(waveform, _WINDOW, axis=-1)[..., ::_HOP, :]
    power = np.abs(np.fft.rfft(frames * window) / (window.sum() / 2)) ** 2
    return 10 * np.log10(np.maximum(power, _POWER_FLOOR))


def _as_pair(original: np.ndarray, estimate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if original.shape != estimate.shape or original.shape[-1] < _WINDOW:
        raise InputError(
            f'signals of shapes {original.shape} and {estimate.shape} cannot be compared: '
            f'they must be the same, with at least {_WINDOW} samples'
        )
    return original.astype(np.float64), estimate.astype(np.float64)

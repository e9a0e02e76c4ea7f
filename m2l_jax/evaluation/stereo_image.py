"""The stereo image: coherence and level difference of two channels, by time and band.

Breebaart, van de Par, Kohlrausch & Schuijers 2005 (Parametric coding of stereo audio): with L and R
the channels' STFTs and sums over the frames of a segment and the bins of a band,

    coherence  |Σ L·R*| / √(Σ |L|² · Σ |R|²)        level difference  10 lg (Σ |L|² / Σ |R|²)

Here the bands are 20 on the mel scale, weighted as `mel_filters` does, segments have 32 frames
(0.4 s at 44.1 kHz), and frames are of 2048 samples (periodic Hann, hop 512). Parts of the original
60 dB below its loudest don't count.
"""

from typing import NamedTuple

import numpy as np

from m2l_jax.evaluation.spectra import HOP, WINDOW, check_pair, hann, mel_filters

_BANDS = 20
_FRAMES = 32  # of a segment
_LEAST_POWER = 1e-6  # of the loudest segment, band and channel
_MOST_DB = 30.0  # the quieter channel is as good as silent


class _Sums(NamedTuple):
    """Over each segment and band: powers `[2, segments, bands]`, products `[segments, bands]`."""

    powers: np.ndarray
    products: np.ndarray

    def coherence(self) -> np.ndarray:
        """`[segments, bands]` in [0, 1]; 0 beside silence."""
        left, right = np.maximum(self.powers, np.finfo(np.float64).tiny)
        return np.abs(self.products) / (np.sqrt(left) * np.sqrt(right))

    def level_difference(self) -> np.ndarray:
        """Left above right in dB, `[segments, bands]`, within ±30."""
        left, right = 10 * np.log10(np.maximum(self.powers, np.finfo(np.float64).tiny))
        return np.clip(left - right, -_MOST_DB, _MOST_DB)

    def is_loud(self) -> np.ndarray:
        """True for the channels that count, `[2, segments, bands]`."""
        loudest = np.max(self.powers)
        return (self.powers >= _LEAST_POWER * loudest) & (loudest > 0)


def coherence_bias(original: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """Mean coherence of the estimate above the original's; below 0 if it is more diffuse.

    Args:
      original, estimate: `[channels, samples]`, the same shape, at least 2048 samples.
      sample_rate: in Hz.

    Returns:
      The mean over segments and bands in which both channels of the original count; nan if there
      are none, and for other than two channels.
    """
    check_pair(original, estimate)
    if len(original) != 2:
        return float('nan')
    before, after = (_sum(signal, sample_rate) for signal in (original, estimate))
    return _mean(after.coherence() - before.coherence(), np.all(before.is_loud(), axis=0))


def level_difference_error(original: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """Mean distance of the level differences of estimate and original in dB, 0 for equals.

    Arguments as of `coherence_bias`. Level differences are limited to ±30 dB.

    Returns:
      The mean over segments and bands in which a channel of the original counts; nan if there are
      none, and for other than two channels.
    """
    check_pair(original, estimate)
    if len(original) != 2:
        return float('nan')
    before, after = (_sum(signal, sample_rate) for signal in (original, estimate))
    distances = np.abs(after.level_difference() - before.level_difference())
    return _mean(distances, np.any(before.is_loud(), axis=0))


def _sum(waveform: np.ndarray, sample_rate: int) -> _Sums:
    """Sums of `[2, samples]`, a segment at a time."""
    filters, window = mel_filters(sample_rate, bands=_BANDS), hann(WINDOW)
    frames = 1 + (waveform.shape[1] - WINDOW) // HOP
    powers, products = [], []
    for first in range(0, frames, _FRAMES):
        count = min(_FRAMES, frames - first)
        part = waveform[:, first * HOP : (first + count - 1) * HOP + WINDOW].astype(np.float64)
        windows = np.lib.stride_tricks.sliding_window_view(part, WINDOW, axis=-1)[:, ::HOP]
        left, right = spectra = np.fft.rfft(windows * window)  # [2, t, 1025]
        powers.append(np.sum(np.abs(spectra) ** 2, axis=1) @ filters)
        products.append(np.sum(left * np.conj(right), axis=0) @ filters)
    return _Sums(np.stack(powers, axis=1), np.stack(products))


def _mean(values: np.ndarray, counted: np.ndarray) -> float:
    return float(np.mean(values[counted])) if np.any(counted) else float('nan')

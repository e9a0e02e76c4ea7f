"""Spectra of signals in NumPy and float64, read block by block: memory is of a block's size."""

import math
from collections.abc import Iterator

import numpy as np

from m2l_jax.interface.errors import InputError

WINDOW = 2048
HOP = 512
BLOCK_VALUES = 1 << 20  # of a signal, or of its frames, at a time: 8 MB in float64
_POWER_FLOOR = 1e-10  # -100 dB: digital silence counts as this, not as minus infinity

# Slaney's Auditory Toolbox: linear below the knee, logarithmic above.
MEL_BANDS = 80  # of `mel_distance`
_MEL_KNEE_HZ, _HZ_PER_MEL, _MELS_PER_NEPER = 1000, 200 / 3, 27 / math.log(6.4)


def power_spectrogram_db(waveform: np.ndarray, hop: int = HOP) -> np.ndarray:
    """Power in dB relative to a full-scale sine, floored: `[..., samples]` to `[..., T, 1025]`."""
    return np.concatenate(list(level_blocks(waveform, hop)), axis=-2)


def average_power_spectrum(waveform: np.ndarray) -> np.ndarray:
    """Mean over time of |STFT|² (Hann 2048, hop 512): `[..., samples]` to `[..., 1025]`."""
    total, frames = 0.0, 0
    for power in power_blocks(waveform, hann(WINDOW), HOP):
        total = total + np.sum(power, axis=-2)
        frames += power.shape[-2]
    return total / frames


def mel_filters(sample_rate: int, window: int = WINDOW, bands: int = MEL_BANDS) -> np.ndarray:
    """Mel filters `[window // 2 + 1, bands]`: each begins and ends at its neighbours' tops."""
    ends = _hz_to_mel(np.array([0.0, sample_rate / 2]))
    places = _mel_to_hz(np.linspace(*ends, bands + 2))
    below, tops, above = places[:-2], places[1:-1], places[2:]
    bins = np.fft.rfftfreq(window, 1 / sample_rate)[:, None]
    triangles = np.minimum((bins - below) / (tops - below), (above - bins) / (above - tops))
    return np.maximum(triangles, 0) * 2 / (above - below)


def level_blocks(waveform: np.ndarray, hop: int) -> Iterator[np.ndarray]:
    """Blocks `[..., t, 1025]` of a power spectrogram in dB, see `power_spectrogram_db`."""
    window = hann(WINDOW)
    full_scale = (window.sum() / 2) ** 2
    for power in power_blocks(waveform, window, hop):
        yield 10 * np.log10(np.maximum(power / full_scale, _POWER_FLOOR))


def power_blocks(
    waveform: np.ndarray, window: np.ndarray, hop: int, centred: bool = False
) -> Iterator[np.ndarray]:
    """Blocks `[..., t, len(window) // 2 + 1]` of |STFT|², over the frames of `[..., samples]`.

    Args:
      waveform: the signal.
      window: of a frame.
      hop: samples from a frame to the next.
      centred: has frames centred on samples 0, hop, …, of the signal mirrored at its ends.
    """
    samples, size = waveform.shape[-1], len(window)
    reach = size // 2 if centred else 0
    frames = 1 + (samples + 2 * reach - size) // hop
    step = max(1, BLOCK_VALUES // (size * math.prod(waveform.shape[:-1])))
    for first in range(0, frames, step):
        count = min(step, frames - first)
        places = np.arange(size + hop * (count - 1)) + first * hop - reach
        mirrored = samples - 1 - np.abs(samples - 1 - np.abs(places))
        block = waveform[..., mirrored].astype(np.float64)
        windows = np.lib.stride_tricks.sliding_window_view(block, size, axis=-1)[..., ::hop, :]
        yield np.abs(np.fft.rfft(windows * window)) ** 2


def check_pair(original: np.ndarray, estimate: np.ndarray) -> None:
    """Raises an InputError for signals of two shapes, or too short for a frame."""
    if original.shape != estimate.shape or original.shape[-1] < WINDOW:
        raise InputError(
            f'signals of shapes {original.shape} and {estimate.shape} cannot be compared: '
            f'they must be the same, with at least {WINDOW} samples'
        )


def hann(samples: int) -> np.ndarray:
    """The periodic Hann window."""
    return np.hanning(samples + 1)[:-1]


def _hz_to_mel(hertz: np.ndarray) -> np.ndarray:
    nepers = np.log(np.maximum(hertz, _MEL_KNEE_HZ) / _MEL_KNEE_HZ)
    return np.minimum(hertz, _MEL_KNEE_HZ) / _HZ_PER_MEL + nepers * _MELS_PER_NEPER


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    knee = _MEL_KNEE_HZ / _HZ_PER_MEL
    return np.minimum(mel, knee) * _HZ_PER_MEL * np.exp(np.maximum(mel - knee, 0) / _MELS_PER_NEPER)

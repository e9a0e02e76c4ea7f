"""ViSQOL's quality score of audio, by the package `visqol-python`."""

import functools
import warnings
from typing import Any

import numpy as np
import soxr

from m2l_jax.evaluation.perception.packages import EXTRA, Package

NEEDS = (Package('visqol', EXTRA),)

_RATE = 48_000  # of the audio mode, in Hz
# One patch of 30 frames begins in frame 15; frames have 80 ms and begin every 20 ms.
_LEAST_SAMPLES = _RATE * (80 + (30 + 15 - 1) * 20) // 1000


def visqol(original: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """Predicted opinion score of ViSQOL v3's audio mode (Chinen et al. 2020), higher is better.

    MOS-LQO, from 1 to 4.73, which a pair of equal signals has. ViSQOL compares the mean of the
    channels, aligned in time and made equally loud, at 48 kHz: signals of other rates are resampled
    by soxr. It was fitted to codecs' artefacts at full bandwidth.

    Args:
      original, estimate: `[channels, samples]`, the same shape.
      sample_rate: in Hz.

    Returns:
      The score; nan for signals shorter than 0.96 s, or if one is silent after the mix.
    """
    pair = [_mix(signal, sample_rate) for signal in (original, estimate)]
    if pair[0].size < _LEAST_SAMPLES or not all(np.any(signal) for signal in pair):
        return float('nan')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return float(_audio_mode().measure_from_arrays(*pair, _RATE).moslqo)


@functools.cache
def _audio_mode() -> Any:
    from visqol import VisqolApi

    api = VisqolApi()
    api.create(mode='audio')
    return api


def _mix(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """The mean of the channels, `[samples]`, float64, at 48 kHz."""
    mixed = np.mean(waveform, axis=0, dtype=np.float64)
    return mixed if sample_rate == _RATE else soxr.resample(mixed, sample_rate, _RATE)

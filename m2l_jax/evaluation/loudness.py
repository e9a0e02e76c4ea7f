"""Integrated loudness, by pyloudnorm."""

import warnings

import numpy as np

from m2l_jax.evaluation.spectra import check_pair

MOST_CHANNELS = 5
_BLOCK_SECONDS = 0.4


def integrated_loudness(waveform: np.ndarray, sample_rate: int) -> float:
    """Measures the gated loudness in LUFS (ITU-R BS.1770-4); -inf for silence.

    A signal shorter than a block of 0.4 s is one block.

    Args:
      waveform: `[channels, samples]`, of `MOST_CHANNELS` at most.
      sample_rate: in Hz.
    """
    import pyloudnorm  # imports SciPy's signals, which training and first use need not wait for

    block = min(_BLOCK_SECONDS, (waveform.shape[-1] - 1) / sample_rate)
    # The default filters are 0.05 dB off at 44.1 kHz.
    meter = pyloudnorm.Meter(sample_rate, filter_class='DeMan', block_size=block)
    with np.errstate(divide='ignore'), warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # the mean of no blocks, for silence
        return float(meter.integrated_loudness(waveform.astype(np.float64).T))


def loudness_bias(original: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """Integrated loudness of the estimate above the original's in LU (ITU-R BS.1770-4).

    nan if one of them is below the gate of -70 LUFS, and for more than five channels, which the
    recommendation does not weigh.

    Args:
      original, estimate: `[channels, samples]`, the same shape.
      sample_rate: in Hz.
    """
    check_pair(original, estimate)
    if len(original) > MOST_CHANNELS:
        return float('nan')
    before, after = (integrated_loudness(x, sample_rate) for x in (original, estimate))
    return after - before if np.isfinite([before, after]).all() else float('nan')

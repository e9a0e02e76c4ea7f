"""Integrated loudness of ITU-R BS.1770-4, in NumPy, at any sample rate."""

import math

import numpy as np

# The two filters of the K-weighting as analogue prototypes, whose bilinear transforms at 48 kHz are
# the recommendation's tables 1 and 2: Mansbridge et al. 2012 (AES 133), and libebur128.
_SHELF_HZ, _SHELF_Q, _SHELF_DB = 1681.974450955533, 0.7071752369554196, 3.999843853973347
_SHELF_MIDDLE = 0.4996667741545416  # of the gain in dB, at the shelf's own frequency
_HIGH_PASS_HZ, _HIGH_PASS_Q = 38.13547087602444, 0.5003270373238773

_BLOCK_SECONDS, _STEPS_A_BLOCK = 0.4, 4
_OFFSET_DB = -0.691
_SILENT_LUFS, _GATE_LU = -70.0, 10.0
_PADDING_SECONDS = 1.0  # in which the filters' response dies away


def integrated_loudness(waveform: np.ndarray, sample_rate: int) -> float:
    """Measures the gated loudness in LUFS (ITU-R BS.1770-4); -inf for silence.

    The mean power of the K-weighted signal, summed over channels, in blocks of 0.4 s that overlap
    by three quarters; blocks below -70 LUFS, and then those 10 LU below the mean of the others, do
    not count. A signal shorter than a block is one block.

    Args:
      waveform: `[channels, samples]`, mono or stereo: all channels have weight 1.
      sample_rate: in Hz.
    """
    power = np.sum(k_weight(waveform, sample_rate) ** 2, axis=0)
    samples = len(power)
    block = min(round(_BLOCK_SECONDS * sample_rate), samples)
    step = max(1, round(_BLOCK_SECONDS * sample_rate / _STEPS_A_BLOCK))
    sums = np.concatenate([[0.0], np.cumsum(power)])
    begins = np.arange(0, samples - block + 1, step)
    powers = np.maximum(sums[begins + block] - sums[begins], 0) / block
    powers = powers[powers > _power(_SILENT_LUFS)]
    if not powers.size:
        return -math.inf
    powers = powers[powers > np.mean(powers) * 10 ** (-_GATE_LU / 10)]
    return _OFFSET_DB + 10 * math.log10(np.mean(powers))


def k_weight(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Filters `[channels, samples]` as BS.1770-4 weighs frequencies; float64."""
    samples = waveform.shape[-1]
    size = 1 << (samples + round(_PADDING_SECONDS * sample_rate)).bit_length()
    response = k_response(np.fft.rfftfreq(size), sample_rate)
    return np.fft.irfft(np.fft.rfft(waveform, size) * response, size)[..., :samples]


def k_response(frequencies: np.ndarray, sample_rate: int) -> np.ndarray:
    """Computes the K-weighting's complex response at frequencies in cycles a sample.

    With s = (1 - z⁻¹) / ((1 + z⁻¹) tan(π f / rate)) for each filter's own frequency f, it is

        (V s² + √V' s / Q + 1) / (s² + s / Q + 1)  ×  s² / (s² + s / Q + 1)  ×  n

    of a high shelf of gain V, and a high-pass, whose table in the recommendation has the numerator
    1, -2, 1: n is the factor between that and the bilinear transform.
    """
    # s / j on the unit circle, before the division by the filter's own tangent.
    tangents = np.tan(np.pi * np.minimum(np.abs(frequencies), 0.5 - 1e-9))
    shelf, high_pass = (
        1j * tangents / math.tan(math.pi * hertz / sample_rate)
        for hertz in (_SHELF_HZ, _HIGH_PASS_HZ)
    )
    gain = 10 ** (_SHELF_DB / 20)
    numerator = gain * shelf**2 + gain**_SHELF_MIDDLE * shelf / _SHELF_Q + 1
    first = numerator / (shelf**2 + shelf / _SHELF_Q + 1)
    tangent = math.tan(math.pi * _HIGH_PASS_HZ / sample_rate)
    scale = 1 + tangent / _HIGH_PASS_Q + tangent**2
    return first * scale * high_pass**2 / (high_pass**2 + high_pass / _HIGH_PASS_Q + 1)


def _power(lufs: float) -> float:
    return 10 ** ((lufs - _OFFSET_DB) / 10)

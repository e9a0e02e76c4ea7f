"""The baseline that a reconstruction has to beat: noise with a clip's own average spectrum."""

import numpy as np

from m2l_jax.evaluation.metrics import average_power_spectrum

_ROUNDS = 10
_SEED = 0


def shaped_noise(waveform: np.ndarray) -> np.ndarray:
    """Stationary Gaussian noise as loud as a clip, on average, at each frequency.

    It has the timbre of the whole clip, and nothing that changes in time: no notes, no beats.

    Args:
      waveform: `[channels, samples]`, at least 2048 samples.

    Returns:
      The same shape, float32: for each channel other noise of a fixed seed, filtered, whose
      `average_power_spectrum` is nearly the channel's.
    """
    samples = waveform.shape[-1]
    white = np.fft.rfft(np.random.default_rng(_SEED).standard_normal(waveform.shape))
    wanted = average_power_spectrum(waveform)
    gains = np.ones_like(wanted)  # [channels, 1025]
    frequencies, points = (np.linspace(0, 1, each.shape[-1]) for each in (white, gains))
    # The gains at 1025 points follow from what the average spectrum of the filtered noise is: its
    # window blurs peaks, and its mean is that of a few seconds.
    for _ in range(_ROUNDS):
        filters = np.stack([np.interp(frequencies, points, channel) for channel in gains])
        noise = np.fft.irfft(white * filters, samples)
        power = average_power_spectrum(noise)
        gains *= np.sqrt(np.divide(wanted, power, out=np.zeros_like(power), where=power > 0))
    return noise.astype(np.float32)

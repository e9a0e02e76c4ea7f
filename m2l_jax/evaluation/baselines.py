"""Baselines that a trained model must beat: itself untrained, and noise."""

import numpy as np

from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.consistency.keys import random_key
from m2l_jax.evaluation.spectra import average_power_spectrum
from m2l_jax.interface.devices import compute_once

_NOISE_SEED = 0
_NOISE_ROUNDS = 10


def untrained_model(codec: EncoderDecoder, seed: int) -> EncoderDecoder:
    """Baseline: a model of the same architecture with initial parameters, drawn by `seed`."""
    return codec.with_params(compute_once(lambda: codec.model.init_params(random_key(seed))))


def shaped_noise(waveform: np.ndarray) -> np.ndarray:
    """Baseline: stationary Gaussian noise with a clip's average power at each frequency.

    It has the timbre of the whole clip and nothing that changes in time: no notes, no beats.

    Args:
      waveform: `[channels, samples]`, at least 2048 samples.

    Returns:
      The same shape, float32: other noise for each channel, of a fixed seed, filtered so that its
      `average_power_spectrum` is nearly the channel's.
    """
    samples = waveform.shape[-1]
    white = np.fft.rfft(np.random.default_rng(_NOISE_SEED).standard_normal(waveform.shape))
    wanted = average_power_spectrum(waveform)
    gains = np.ones_like(wanted)  # [channels, 1025]
    frequencies, points = (np.linspace(0, 1, each.shape[-1]) for each in (white, gains))
    # The window blurs peaks, and the mean is over a few seconds: correct the gains by the average
    # spectrum that the filtered noise has.
    for _ in range(_NOISE_ROUNDS):
        filters = np.stack([np.interp(frequencies, points, channel) for channel in gains])
        noise = np.fft.irfft(white * filters, samples)
        power = average_power_spectrum(noise)
        gains *= np.sqrt(np.divide(wanted, power, out=np.zeros_like(power), where=power > 0))
    return noise.astype(np.float32)

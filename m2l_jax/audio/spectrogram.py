"""Waveform <-> the amplitude-compressed complex spectrogram that the model works on.

All functions are pure, batched over leading axes and differentiable everywhere, silence included.
They take NumPy or JAX arrays and return the same kind: the input pipeline and the jitted step share
them.
"""

import dataclasses
from typing import Any

import numpy as np

from m2l_jax.interface.errors import InputError

Array = Any  # a numpy.ndarray or a jax.Array


@dataclasses.dataclass(frozen=True)
class SpectrogramConfig:
    """The representation's constants (Music2Latent, section 3.1; β as in the released weights).

    Attributes:
      sample_rate: in Hz.
      window: samples in a frame, also the length of its FFT.
      hop: samples from one frame to the next; divides `window`.
      alpha: exponent of the amplitude compression, in (0, 1].
      beta: gain after the compression.
    """

    sample_rate: int = 44_100
    window: int = 2048
    hop: int = 512
    alpha: float = 0.65
    beta: float = 0.34

    def __post_init__(self):
        if self.hop <= 0 or self.window % self.hop:
            raise InputError(f'spectrogram.hop={self.hop} must divide window={self.window}')

    @property
    def bins(self) -> int:
        """Frequency bins F: those of the real FFT without the Nyquist bin."""
        return self.window // 2

    @property
    def reach(self) -> int:
        """Samples that a frame reaches beyond its hop."""
        return self.window - self.hop

    def frames(self, samples: int) -> int:
        """Number of whole frames T in `samples`."""
        return max(0, 1 + (samples - self.window) // self.hop)

    def samples(self, frames: int) -> int:
        """Number of samples that `frames` cover."""
        return self.window + self.hop * (frames - 1)


def to_spectrogram(waveform: Array, config: SpectrogramConfig) -> Array:
    """Short-time Fourier transform with compressed amplitudes.

    Periodic Hann window, no centre padding; samples after the last whole frame are dropped.

    Args:
      waveform: `[..., N]`, float32, nominally in [-1, 1], N ≥ window.

    Returns:
      `[..., F, T, 2]`, float32: real and imaginary part of β·|c|^α·e^{i∠c}; silence gives zeros.
    """
    xp = waveform.__array_namespace__()
    if waveform.shape[-1] < config.window:
        raise InputError(
            f'{waveform.shape[-1]} samples are fewer than one window of {config.window}'
        )
    frames = _split_into_frames(waveform, config) * _hann(config)  # [..., T, window]
    spectrum = xp.fft.rfft(frames)[..., :-1]  # [..., T, F], Nyquist dropped
    spectrum = xp.swapaxes(spectrum, -2, -1)  # [..., F, T]
    scale = config.beta * _magnitude_power(spectrum.real, spectrum.imag, config.alpha - 1)
    return xp.stack([spectrum.real * scale, spectrum.imag * scale], axis=-1)  # [..., F, T, 2]


def to_waveform(spectrogram: Array, config: SpectrogramConfig) -> Array:
    """Inverse of `to_spectrogram`: `synthesise`, clipped to [-1, 1]."""
    waveform = synthesise(spectrogram, config)
    return waveform.__array_namespace__().clip(waveform, -1.0, 1.0)


def synthesise(spectrogram: Array, config: SpectrogramConfig) -> Array:
    """Inverse of `to_spectrogram`, by weighted overlap-add.

    Waveforms of consecutive spectrograms add up, where they overlap, to that of the whole.

    The synthesis window is the analysis window over the sum of its squares at full overlap, so the
    first and last `window - hop` samples fade where fewer frames overlap.

    Args:
      spectrogram: `[..., F, T, 2]`.

    Returns:
      `[..., window + hop·(T - 1)]`, float32.
    """
    xp = spectrogram.__array_namespace__()
    real, imag = (
        xp.swapaxes(spectrogram[..., part], -2, -1) / config.beta for part in range(2)
    )  # [..., T, F]
    scale = _magnitude_power(real, imag, 1 / config.alpha - 1)
    spectrum = real * scale + 1j * (imag * scale)  # [..., T, F]
    nyquist = xp.zeros((*spectrum.shape[:-1], 1), spectrum.dtype)
    frames = xp.fft.irfft(xp.concatenate([spectrum, nyquist], axis=-1))  # [..., T, window]
    overlaps = np.tile(np.sum(_hann(config).reshape(-1, config.hop) ** 2, axis=0), _overlap(config))
    return _overlap_add(frames * (_hann(config) / overlaps), config)


def _overlap(config: SpectrogramConfig) -> int:
    """Number of frames that cover a sample in the middle of the signal."""
    return config.window // config.hop


def _hann(config: SpectrogramConfig) -> np.ndarray:
    phase = 2 * np.pi * np.arange(config.window) / config.window
    return (0.5 - 0.5 * np.cos(phase)).astype(np.float32)


def _split_into_frames(waveform: Array, config: SpectrogramConfig) -> Array:
    """`[..., N]` to `[..., T, window]`: shifted views of hop-sized blocks, without a gather."""
    xp = waveform.__array_namespace__()
    frames = config.frames(waveform.shape[-1])
    whole = waveform[..., : config.samples(frames)]
    blocks = whole.reshape(*whole.shape[:-1], -1, config.hop)  # [..., T + overlap - 1, hop]
    shifted = [blocks[..., shift : shift + frames, :] for shift in range(_overlap(config))]
    return xp.concatenate(shifted, axis=-1)  # [..., T, window]


def _overlap_add(frames: Array, config: SpectrogramConfig) -> Array:
    """`[..., T, window]` to `[..., window + hop·(T - 1)]`, a hop-sized piece at a time."""
    xp = frames.__array_namespace__()
    last = _overlap(config) - 1
    leading = [(0, 0)] * (frames.ndim - 2)
    blocks = sum(
        xp.pad(
            frames[..., shift * config.hop : (shift + 1) * config.hop],
            [*leading, (shift, last - shift), (0, 0)],
        )
        for shift in range(last + 1)
    )  # [..., T + overlap - 1, hop]
    return blocks.reshape(*blocks.shape[:-2], -1)


def _magnitude_power(real: Array, imag: Array, exponent: float) -> Array:
    """|c|^exponent, and 0 where c is 0: c times it is |c|^(exponent + 1) with the angle of c.

    Written as (|c|²)^(exponent/2): neither an angle nor a root of zero is ever formed, and the
    guard on both sides of the power keeps 0·∞ out of its gradient.
    """
    xp = real.__array_namespace__()
    power = real * real + imag * imag
    silent = power <= np.finfo(np.float32).tiny  # False for NaN, which is to stay visible
    return xp.where(silent, 0.0, xp.where(silent, 1.0, power) ** (exponent / 2))

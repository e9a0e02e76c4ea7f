"""Planes of a model's spectrogram: real and imaginary part of each audio channel.

Mono has two. Stereo has four: `left_right` in the order left real, left imaginary, right real,
right imaginary; `mid_side` the same of mid M = (L + R)/√2 and side S = (L - R)/√2. That is
orthonormal, so both keep the energy of left and right, and it is its own inverse. It acts on
waveforms, and so before the amplitudes are compressed.

As in `spectrogram`, arrays are NumPy's or JAX's.
"""

import math

import numpy as np

from m2l_jax.audio.spectrogram import Array, SpectrogramConfig, synthesise, to_spectrogram

PARTS = 2  # real and imaginary
MONO = 'mono'
STEREO = ('left_right', 'mid_side')


def to_planes(waveform: Array, config: SpectrogramConfig, layout: str = MONO) -> Array:
    """Spectrograms with the planes of all audio channels last.

    Args:
      waveform: `[..., N]` of mono, `[..., 2, N]` of stereo, as for `to_spectrogram`.
      layout: `MONO` or one of `STEREO`.

    Returns:
      `[..., F, T, 2]` of mono, `[..., F, T, 4]` of stereo, float32.
    """
    if layout == MONO:
        return to_spectrogram(waveform, config)
    xp = waveform.__array_namespace__()
    spectrogram = to_spectrogram(_rotate(waveform, layout), config)  # [..., 2, F, T, 2]
    spectrogram = xp.moveaxis(spectrogram, -4, -2)  # [..., F, T, 2, 2]
    return spectrogram.reshape(*spectrogram.shape[:-2], -1)  # [..., F, T, 4]


def from_planes(planes: Array, config: SpectrogramConfig, layout: str = MONO) -> Array:
    """Inverse of `to_planes` by `synthesise`: `[..., samples]` or `[..., 2, samples]`."""
    if layout == MONO:
        return synthesise(planes, config)
    xp = planes.__array_namespace__()
    spectrogram = xp.moveaxis(_by_channel(planes), -2, -4)  # [..., 2, F, T, 2]
    return _rotate(synthesise(spectrogram, config), layout)


def magnitudes(planes: Array) -> Array:
    """Magnitude of each audio channel, mid and side among them: `[..., 2·A]` to `[..., A]`."""
    xp = planes.__array_namespace__()
    return xp.sqrt(xp.sum(_by_channel(planes) ** 2, axis=-1))


def as_stereo(waveform: np.ndarray) -> np.ndarray:
    """Mono or stereo `[1 or 2, N]` as `[2, N]`, read-only: mono is the same on both sides."""
    return np.broadcast_to(waveform, (2, waveform.shape[-1]))


def describe_surplus(channels: int) -> str:
    """A line on audio of more channels than stereo has, to follow its name; '' for others."""
    if channels <= 2:
        return ''
    return f'has {channels} channels, and a stereo model takes one or two: mix it down first'


def _by_channel(planes: Array) -> Array:
    return planes.reshape(*planes.shape[:-1], -1, PARTS)  # [..., A, 2]


def _rotate(waveform: Array, layout: str) -> Array:
    """Left and right `[..., 2, N]` to the two channels of the layout, or back."""
    if layout == 'left_right':
        return waveform
    xp = waveform.__array_namespace__()
    one, other = waveform[..., 0, :], waveform[..., 1, :]
    return xp.stack([one + other, one - other], axis=-2) * math.sqrt(0.5)

"""Sounds of a listening test: a clip, its reconstructions and its anchors, equally loud."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from m2l_jax.evaluation.loudness import integrated_loudness
from m2l_jax.evaluation.metrics import LEAST_SAMPLES
from m2l_jax.interface.errors import InputError

# Low-pass anchors of ITU-R BS.1534-3 by the name that webMUSHRA gives them: within 0.1 dB up to the
# first frequency, 60 dB down from the second. The recommendation asks for 25 dB at 0.5 kHz above
# the first, and 50 dB at 1 kHz.
ANCHORS = {'anchor35': (3500, 3950), 'anchor70': (7000, 7450)}
_STOP_DB = 60

_HIGHEST_PEAK = 0.98


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A clip and what models made of it.

    Attributes:
      name: shown to the listener.
      sample_rate: in Hz.
      original: `[channels, samples]` in [-1, 1], mono or stereo, float32.
      reconstructions: the same shape, by the model's name, in the order of the page.
    """

    name: str
    sample_rate: int
    original: np.ndarray
    reconstructions: Mapping[str, np.ndarray]

    def sounds(self) -> list[np.ndarray]:
        """The original and the reconstructions."""
        return [self.original, *self.reconstructions.values()]


def check_comparisons(clips: Sequence[Comparison]) -> None:
    """Raises an InputError for clips that cannot be on one page."""
    if not clips:
        raise InputError('there are no clips to listen to: give at least one')
    rate, models, names = clips[0].sample_rate, list(clips[0].reconstructions), set()
    for clip in clips:
        if clip.name in names:
            raise InputError(f'two clips have the name {clip.name!r}: give each its own')
        names.add(clip.name)
        if clip.sample_rate != rate:
            raise InputError(
                f'clip {clip.name!r} has {clip.sample_rate} Hz, {clips[0].name!r} {rate} Hz: '
                'resample them to one rate'
            )
        if list(clip.reconstructions) != models:
            raise InputError(
                f'clip {clip.name!r} has reconstructions by {list(clip.reconstructions)}, '
                f'{clips[0].name!r} by {models}: all need the same, in the same order'
            )
        _check_shapes(clip)


def matching_gains(sounds: Sequence[np.ndarray], sample_rate: int) -> list[float]:
    """Computes gains that give all sounds the first one's loudness and let none clip.

    Args:
      sounds: `[channels, samples]` each.
      sample_rate: in Hz.

    Returns:
      A gain for each. All are lower by one factor if a peak would exceed 0.98. A silent sound has
      only that factor, and so have all others if the first is silent.
    """
    loudness = [integrated_loudness(sound, sample_rate) for sound in sounds]
    differences = [loudness[0] - each for each in loudness]
    gains = [10 ** (each / 20) if math.isfinite(each) else 1.0 for each in differences]
    peaks = [gain * np.max(np.abs(sound)) for gain, sound in zip(gains, sounds, strict=True)]
    factor = _HIGHEST_PEAK / max(_HIGHEST_PEAK, *peaks)
    return [float(gain * factor) for gain in gains]


def anchor_filters(sample_rate: int) -> dict[str, np.ndarray]:
    """Designs the filters of `ANCHORS` that cut something off at this rate; see `low_pass`."""
    return {
        name: low_pass(*edges, sample_rate)
        for name, edges in ANCHORS.items()
        if edges[1] < sample_rate / 2
    }


def low_pass(hertz: float, stop_hertz: float, sample_rate: int) -> np.ndarray:
    """Designs a linear-phase low-pass filter by Kaiser's window; an odd number of taps.

    Args:
      hertz: up to which it passes, within 0.1 dB.
      stop_hertz: from which it is 60 dB down.
      sample_rate: in Hz.
    """
    width = 2 * math.pi * (stop_hertz - hertz) / sample_rate
    half = math.ceil((_STOP_DB - 7.95) / (2 * 2.285 * width))  # Kaiser's formulas
    window = np.kaiser(2 * half + 1, 0.1102 * (_STOP_DB - 8.7))
    cut = (hertz + stop_hertz) / sample_rate  # of half the rate
    taps = np.sinc(cut * np.arange(-half, half + 1)) * window
    return taps / np.sum(taps)


def apply_filter(waveform: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Convolves `[channels, samples]` with an odd number of taps, without a delay; float32."""
    half, samples = len(taps) // 2, waveform.shape[1]
    size = 1 << (samples + len(taps)).bit_length()  # FFTs of other sizes may take ten times longer
    filtered = np.fft.irfft(np.fft.rfft(waveform, size) * np.fft.rfft(taps, size), size)
    return filtered[:, half : half + samples].astype(np.float32)


def _check_shapes(clip: Comparison) -> None:
    shape = clip.original.shape
    if len(shape) != 2 or shape[0] not in (1, 2) or shape[1] < LEAST_SAMPLES:
        raise InputError(
            f'clip {clip.name!r} has shape {shape}: it must be [channels, samples] with one or two '
            f'channels and at least {LEAST_SAMPLES} samples'
        )
    for name, sound in zip(('original', *clip.reconstructions), clip.sounds(), strict=True):
        if sound.shape != shape:
            raise InputError(
                f'clip {clip.name!r}: {name!r} has shape {sound.shape}, the original {shape}: '
                'cut them to the same'
            )
        if not np.all(np.isfinite(sound)):
            raise InputError(f'clip {clip.name!r}: {name!r} holds NaN or infinite samples')

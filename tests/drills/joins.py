"""Does a join of chunks stand out from what is inside them?

Two measures of a waveform, frame by frame: `clicks`, which a step in the waveform or its slope
raises, and `changes` of the spectrum, in which a sudden change of sound or level shows. Around each
place where chunks meet, the largest is taken, and ranked among those of equally long stretches
inside chunks: a join that nothing gives away ranks anywhere, at 50 % on average.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

FRAME = 256  # samples, 6 ms
_NEIGHBOURS = 16  # frames on each side, 93 ms
_WINDOW = 1024
_FLOOR = 1e-5  # of a sine's amplitude: -100 dB


@dataclasses.dataclass(frozen=True)
class Ranking:
    """How places compare with what lies between them.

    Attributes:
      largest: value at each place.
      inside: largest values of stretches inside chunks.
    """

    largest: np.ndarray
    inside: np.ndarray

    @property
    def percentiles(self) -> np.ndarray:
        """Of each place among the stretches inside, 100 for what is above them all."""
        return 100 * np.mean(self.inside[:, None] < self.largest, axis=0)

    def describe(self) -> dict[str, float]:
        """As figures."""
        return {
            'largest_at_joins': round(float(self.largest.max()), 3),
            'largest_inside': round(float(self.inside.max()), 3),
            'median_at_joins': round(float(np.median(self.largest)), 3),
            'median_inside': round(float(np.median(self.inside)), 3),
            'median_percentile': round(float(np.median(self.percentiles)), 1),
        }


def clicks(waveform: np.ndarray) -> np.ndarray:
    """Of each frame of `[samples]`, the largest second difference over that of the neighbourhood.

    A step of the waveform, or of its slope, is in it what it is against the sound around: of a
    height that the music has there all the time, nobody hears it.
    """
    frames = len(waveform) // FRAME
    bend = np.abs(np.diff(waveform[: frames * FRAME], 2, prepend=0, append=0))
    peaks = bend.reshape(frames, FRAME).max(axis=1)
    padded = np.pad(peaks, _NEIGHBOURS, mode='reflect')
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * _NEIGHBOURS + 1)
    usual = np.median(around, axis=1)
    return peaks / np.maximum(usual, _FLOOR)


def changes(waveform: np.ndarray) -> np.ndarray:
    """Of each frame of `[samples]`, how far the spectra before and after it are apart, in dB."""
    frames = len(waveform) // FRAME
    window = np.hanning(_WINDOW) * 4 / _WINDOW
    padded = np.pad(waveform, (_WINDOW, _WINDOW))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::FRAME]
    levels = 20 * np.log10(np.abs(np.fft.rfft(pieces * window)) + _FLOOR)
    before, after = levels[:frames], levels[_WINDOW // FRAME :][:frames]
    return np.sqrt(np.mean((after - before) ** 2, axis=1))


def rank(values: np.ndarray, places: Sequence[int], width: int) -> Ranking:
    """Compares what is around places with what is elsewhere.

    Args:
      values: of each frame.
      places: samples at which a join begins, ends, or is in its middle.
      width: samples on each side of a place that count as it.
    """
    length = 2 * (width // FRAME) + 1
    begins = [place // FRAME - width // FRAME for place in places]
    is_join = np.zeros(len(values), bool)
    for begin in begins:
        is_join[begin : begin + length] = True
    largest = [values[begin : begin + length].max() for begin in begins]
    inside = [
        values[begin : begin + length].max()
        for begin in range(length, len(values) - 2 * length, length)  # not at the very ends
        if not is_join[begin : begin + length].any()
    ]
    return Ranking(np.array(largest), np.array(inside))

"""Audio that is read without an error and is none: far beyond full scale, or all one number."""

import logging
import threading
from collections.abc import Iterable, Iterator

import numpy as np

from m2l_jax.interface.errors import InputError

_logger = logging.getLogger(__name__)
_lock = threading.Lock()
_told: set[tuple[str, str]] = set()  # what has been warned of

# Full scale is 1. Clipped mixes and resampling reach 2 or 3; integers taken for floats, more than
# this wherever there is more than noise.
_HIGHEST_PEAK = 8
_INTEGER_SCALES = (1 << 7, 1 << 15, 1 << 23, 1 << 31)


class Levels:
    """Peak and constancy of audio that passes by in blocks."""

    def __init__(self):
        self._peak = 0.0
        self._first: np.ndarray | None = None  # sample of each channel
        self._is_constant = True

    def measured(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The same blocks, `[samples, channels]`, each of which is added."""
        for block in blocks:
            self.add(block)
            yield block

    def add(self, block: np.ndarray) -> None:
        """Takes `[samples, channels]` into account."""
        if not len(block):
            return
        # Not by channel, which takes NumPy longer than decoding does.
        self._peak = max(self._peak, -float(block.min()), float(block.max()))
        if self._first is None:
            self._first = block[0].copy()
        self._is_constant = self._is_constant and bool(np.all(block == self._first))

    def too_loud(self) -> str:
        """Says that and by how much the audio is too loud; '' if it is not."""
        if not _HIGHEST_PEAK < self._peak < np.inf:
            return ''
        scale = next((scale for scale in _INTEGER_SCALES if self._peak <= scale), self._peak)
        return f'too loud: peak {self._peak:.7g} of full scale 1; divide its samples by {scale:.7g}'

    def constant(self) -> str:
        """Says that each channel is one number throughout; '' if it is not."""
        if self._first is None or not self._is_constant:
            return ''
        values = ', '.join(map(str, np.unique(self._first)))
        kind = 'no sound' if np.any(self._first) else 'silence'
        return f'all samples are equal ({values}): {kind}'

    def oddity(self) -> str:
        """Says what is odd about the audio, all of which has been added; '' if nothing is."""
        return self.too_loud() or self.constant()


def levels_of(waveform: np.ndarray) -> Levels:
    """Those of `[channels, samples]`."""
    levels = Levels()
    levels.add(waveform.T)
    return levels


def check_loudness(waveform: np.ndarray, name: str) -> None:
    """Refuses `[channels, samples]` beyond what even integers taken for floats explain.

    Raises:
      InputError: if there is such a sample; it names the file.
    """
    if np.abs(waveform).max(initial=0) > _INTEGER_SCALES[-1]:
        raise InputError(f'{name} is {levels_of(waveform).too_loud()}')


def log_once(name: str, reason: str) -> None:
    """Warns of a file, unless there is no reason or this process has done so for the like."""
    key = name, reason.partition(':')[0]
    with _lock:
        is_new = bool(reason) and key not in _told
        if is_new:
            _told.add(key)
    if is_new:
        _logger.warning('%s: %s', name, reason)

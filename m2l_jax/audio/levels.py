"""Levels of waveforms: 16-bit samples, and audio far beyond full scale or all one number."""

import logging
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from m2l_jax.interface.errors import InputError

_logger = logging.getLogger(__name__)
_lock = threading.Lock()
_logged: set[tuple[str, str]] = set()  # files and reasons of the warnings of this process

# A waveform of full scale 1 times this is 16-bit samples.
FULL_SCALE = 32_768
# Clipped mixes and resampling reach 2 or 3; integers taken for floats, more than this.
_HIGHEST_PEAK = 8
_INTEGER_SCALES = (1 << 7, 1 << 15, 1 << 23, 1 << 31)


def to_int16(waveform: np.ndarray) -> np.ndarray:
    """Rounds a finite waveform of full scale 1 to 16 bits; clips +1 and beyond."""
    scaled = np.rint(waveform * np.float32(FULL_SCALE))
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def from_int16(samples: Any) -> Any:
    """Converts integers, in a NumPy or JAX array, to a waveform in float32."""
    return samples.astype(np.float32) / np.float32(FULL_SCALE)


class Levels:
    """Peak and constancy of audio that is added block by block."""

    def __init__(self):
        self._peak = 0.0
        self._first: np.ndarray | None = None  # sample of each channel
        self._is_constant = True

    def measured(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Adds each of the blocks, `[samples, channels]`, and yields it."""
        for block in blocks:
            self.add(block)
            yield block

    def add(self, block: np.ndarray) -> None:
        """Adds `[samples, channels]`."""
        if not len(block):
            return
        # Over all channels: one by one takes NumPy longer than decoding does.
        self._peak = max(self._peak, -float(block.min()), float(block.max()))
        if self._first is None:
            self._first = block[0].copy()
        self._is_constant = self._is_constant and bool(np.all(block == self._first))

    def too_loud(self) -> str:
        """Describes by how much the audio is too loud; '' if it is not."""
        if not _HIGHEST_PEAK < self._peak < np.inf:
            return ''
        scale = next((scale for scale in _INTEGER_SCALES if self._peak <= scale), self._peak)
        return f'too loud: peak {self._peak:.7g} of full scale 1; divide its samples by {scale:.7g}'

    def constant(self) -> str:
        """Describes audio whose channels are one number each; '' for other audio."""
        if self._first is None or not self._is_constant:
            return ''
        values = ', '.join(map(str, np.unique(self._first)))
        kind = 'no sound' if np.any(self._first) else 'silence'
        return f'all samples are equal ({values}): {kind}'

    def oddity(self) -> str:
        """Describes what is odd about the audio; '' if nothing is."""
        return self.too_loud() or self.constant()


def levels_of(waveform: np.ndarray) -> Levels:
    """Measures `[channels, samples]`."""
    levels = Levels()
    levels.add(waveform.T)
    return levels


def check_loudness(waveform: np.ndarray, name: str) -> None:
    """Raises an InputError that names the file for samples beyond even 32-bit integers."""
    if np.abs(waveform).max(initial=0) > _INTEGER_SCALES[-1]:
        raise InputError(f'{name} is {levels_of(waveform).too_loud()}')


def log_once(name: str, reason: str) -> None:
    """Warns of a file, unless `reason` is empty or this process has logged one like it."""
    key = name, reason.partition(':')[0]
    with _lock:
        is_new = bool(reason) and key not in _logged
        if is_new:
            _logged.add(key)
    if is_new:
        _logger.warning('%s: %s', name, reason)

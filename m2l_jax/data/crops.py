"""Training crops: each is a pure function of the audio and (seed, step, row), without state."""

import collections
import logging
import threading
from collections.abc import Sequence

import numpy as np

from m2l_jax.data.config import Collection
from m2l_jax.data.sources import Place, Source, name_in
from m2l_jax.interface.errors import InputError

_logger = logging.getLogger(__name__)

# A silent, damaged or not finite crop is redrawn. After this number in a row, hardly anything in
# the collection is usable.
_MAX_ATTEMPTS = 2000
_SILENT_DRAWS_TO_REPORT = 20


class CropReader:
    """Reads the crop of a step and row. Thread-safe.

    A row's collection is drawn first, by the weights. An unusable crop is redrawn from the same
    collection, so that the weights hold.

    Attributes:
      reported: item -> why crops of it were rejected.
    """

    def __init__(self, mix: Sequence[tuple[Collection, Source]], seed: int, min_rms: float):
        self.reported: dict[str, str] = {}
        self._mix = mix
        self._ends = np.cumsum([collection.weight for collection, _ in mix])
        self._seed = seed
        self._min_rms = min_rms
        self._silent_draws: collections.Counter[str] = collections.Counter()
        self._sounding: set[str] = set()
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raises an InputError if a collection has no usable crop."""
        for collection, source in self._mix:
            self._first_usable(collection, source, step=0, row=0)

    def read(self, step: int, row: int) -> np.ndarray:
        """Reads the crop of a row of a step's global batch, `[samples]` or `[2, samples]`, float32.

        Raises:
          InputError: if hardly anything in the row's collection is usable.
        """
        return self._first_usable(*self._collection(step, row), step, row)[1]

    def locate(self, step: int, row: int) -> Place:
        """Returns the place of the crop that `read` reads."""
        return self._first_usable(*self._collection(step, row), step, row)[0]

    def _collection(self, step: int, row: int) -> tuple[Collection, Source]:
        position = self._random(step, row, 0).random() * self._ends[-1]
        return self._mix[int(np.searchsorted(self._ends[:-1], position, side='right'))]

    def _random(self, step: int, row: int, purpose: int) -> np.random.Generator:
        # Philox counts in the lowest word; the others identify the draw.
        bits = np.random.Philox(key=self._seed, counter=[0, purpose, row, step])
        return np.random.Generator(bits)

    def _first_usable(
        self, collection: Collection, source: Source, step: int, row: int
    ) -> tuple[Place, np.ndarray]:
        for attempt in range(_MAX_ATTEMPTS):
            place = source.draw(self._random(step, row, 1 + attempt))
            try:
                waveform = source.read(place)
            except InputError as error:
                with self._lock:
                    report(self.reported, place.item, str(error))
                continue
            if self._is_sounding(place.item, waveform):
                return place, waveform
        raise InputError(
            f'{name_in(self._mix, collection)}{_MAX_ATTEMPTS} crops drawn in a row from '
            f'{collection.path} cannot be used (silent below RMS {self._min_rms}, damaged or not '
            'finite): check the path or lower data.min_rms'
        )

    def _is_sounding(self, item: str, waveform: np.ndarray) -> bool:
        is_silent = np.sqrt(np.mean(waveform**2)) < self._min_rms
        with self._lock:
            if not is_silent:
                self._sounding.add(item)  # its pauses are not reported
            elif item not in self._sounding:
                self._silent_draws[item] += 1
                if self._silent_draws[item] >= _SILENT_DRAWS_TO_REPORT:
                    reason = f'{item} is silent (RMS below {self._min_rms}): remove it'
                    report(self.reported, item, reason)
        return not is_silent


def report(reported: dict[str, str], item: str, reason: str) -> None:
    """Records and logs why an item is not used, the first time."""
    if item not in reported:
        reported[item] = reason
        _logger.warning('skipping %s', reason)

"""Which crop a training example is: a pure function of (seed, step, row).

Nothing here has state that training would have to save: any process that knows the collections and
the seed reads the same crop for the same step and row, whatever it has read before.
"""

import collections
import logging
import threading
from collections.abc import Sequence

import numpy as np

from m2l_jax.data.config import Collection
from m2l_jax.data.sources import Place, Source, open_source
from m2l_jax.interface.errors import InputError

_logger = logging.getLogger(__name__)

# A crop is redrawn when it is silent, damaged or not finite. So many misses in a row for a single
# row mean that hardly anything in its collection can be used.
_MAX_ATTEMPTS = 2000
_SILENT_DRAWS_TO_REPORT = 20


def open_collections(
    mix: Sequence[Collection], sample_rate: int, crop_samples: int
) -> list[tuple[Collection, Source]]:
    """Opens each collection of the mix, and tells what is in it and what is left out.

    Raises:
      InputError: if a collection is missing or has nothing that can be used, naming it.
    """
    opened = []
    for collection in mix:
        try:
            source = open_source(collection.path, sample_rate, crop_samples)
        except InputError as error:
            raise InputError(_name(collection, mix) + str(error)) from None
        _logger.info('%s%s', _name(collection, mix), source.describe())
        for reason in source.skipped:
            _logger.warning('skipping %s', reason)
        opened.append((collection, source))
    return opened


class CropReader:
    """Reads the crop of (step, row). Thread-safe; remembers only what it has to report.

    A row's collection is drawn by the weights, before anything is read; a crop that cannot be used
    is redrawn from the same collection, so that rejection leaves the weights as they are.
    """

    def __init__(self, mix: Sequence[tuple[Collection, Source]], seed: int, min_rms: float):
        self.reported: dict[str, str] = {}  # item -> why crops of it were rejected
        self._collections = [collection for collection, _ in mix]
        self._sources = [source for _, source in mix]
        self._ends = np.cumsum([collection.weight for collection in self._collections])
        self._seed = seed
        self._min_rms = min_rms
        self._silent_draws: collections.Counter[str] = collections.Counter()
        self._sounding: set[str] = set()
        self._lock = threading.Lock()

    def check(self) -> None:
        """Makes sure that every collection has a crop to train on.

        Raises:
          InputError: naming a collection that has none.
        """
        for number in range(len(self._sources)):
            self._first_usable(number, step=0, row=0)

    def read(self, step: int, row: int) -> np.ndarray:
        """The crop of a row of a step's global batch, `[crop_samples]`, float32.

        Raises:
          InputError: if the row's collection holds hardly anything that can be used.
        """
        return self._first_usable(self._collection(step, row), step, row)[1]

    def locate(self, step: int, row: int) -> Place:
        """Where the crop of a row of a step's global batch comes from."""
        return self._first_usable(self._collection(step, row), step, row)[0]

    def draw(self, step: int, row: int, attempt: int = 0) -> Place:
        """The place that the `attempt`-th draw for a row of a step's global batch falls on."""
        return self._draw(self._collection(step, row), step, row, attempt)

    def _collection(self, step: int, row: int) -> int:
        position = self._random(step, row, 0).random() * self._ends[-1]
        return int(np.searchsorted(self._ends[:-1], position, side='right'))

    def _draw(self, number: int, step: int, row: int, attempt: int) -> Place:
        return self._sources[number].draw(self._random(step, row, 1 + attempt))

    def _random(self, step: int, row: int, purpose: int) -> np.random.Generator:
        # The lowest word of the counter is the generator's own; the others name the draw.
        bits = np.random.Philox(key=self._seed, counter=[0, purpose, row, step])
        return np.random.Generator(bits)

    def _first_usable(self, number: int, step: int, row: int) -> tuple[Place, np.ndarray]:
        source = self._sources[number]
        for attempt in range(_MAX_ATTEMPTS):
            place = self._draw(number, step, row, attempt)
            try:
                waveform = source.read(place)
            except InputError as error:
                self._report(place.item, str(error))
                continue
            if self._is_sounding(place.item, waveform):
                return place, waveform
        collection = self._collections[number]
        raise InputError(
            f'{_name(collection, self._collections)}{_MAX_ATTEMPTS} crops drawn in a row from '
            f'{collection.path} cannot be used (silent below RMS {self._min_rms}, damaged or not '
            'finite): check the path or lower data.min_rms'
        )

    def _is_sounding(self, item: str, waveform: np.ndarray) -> bool:
        is_silent = np.sqrt(np.mean(waveform**2)) < self._min_rms
        with self._lock:
            if not is_silent:
                self._sounding.add(item)  # its pauses are nothing to report
            elif item not in self._sounding:
                self._silent_draws[item] += 1
        if self._silent_draws[item] >= _SILENT_DRAWS_TO_REPORT and item not in self._sounding:
            self._report(item, f'{item} is silent (RMS below {self._min_rms}): remove it')
        return not is_silent

    def _report(self, item: str, reason: str) -> None:
        with self._lock:
            if item in self.reported:
                return
            self.reported[item] = reason
        _logger.warning('leaving out what cannot be used: %s', reason)


def _name(collection: Collection, mix: Sequence[Collection]) -> str:
    """How a message begins that is about a collection: with its name, where there are several."""
    return f'data.mix {collection.name!r}: ' if len(mix) > 1 else ''

"""Measurement of a system, a model or a baseline, on clips."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from m2l_jax.evaluation import statistics
from m2l_jax.evaluation.clips import Clip
from m2l_jax.evaluation.measuring.workers import Workers
from m2l_jax.evaluation.metrics import measure_named
from m2l_jax.interface.progress import progress

Reconstruct = Callable[[np.ndarray, int], np.ndarray]
"""Makes an estimate of a waveform, the same shape, from the noise of a seed."""

Take = Callable[[int, np.ndarray], None]
"""Gets the number of a clip and its reconstruction, `[channels, samples]`."""

_TIMED = 5  # of the first reconstructions: no figures are computed while these are made


def ignore(number: int, waveform: np.ndarray) -> None:
    """Keeps nothing."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """A system's figures, some of which may still be computed.

    Attributes:
      seconds: median time of a reconstruction over its samples; nan if only one was made.
      clips: their names.
      figures: by seed and clip.
    """

    seconds: float
    clips: list[str]
    figures: list[list['Future[dict[str, float]]']]

    def summarise(self) -> dict[str, Any]:
        """Waits for all figures and returns `statistics.summarise` of them.

        Raises:
          InputError: if one could not be computed.
        """
        figures = [[future.result() for future in futures] for futures in self.figures]
        return statistics.summarise(self.clips, figures)


@dataclasses.dataclass(frozen=True)
class Trial:
    """Clips on which systems are measured in the same way, one after another.

    Attributes:
      clips: of one rate.
      sample_rate: in Hz.
      seeds: each makes its own reconstruction of each clip.
      metrics: names, of `metrics.ALL_METRICS`.
      workers: compute the figures.
    """

    clips: Sequence[Clip]
    sample_rate: int
    seeds: Sequence[int]
    metrics: Sequence[str]
    workers: Workers

    def measure(self, name: str, reconstruct: Reconstruct, take: Take = ignore) -> Measured:
        """Reconstructs all clips, while the workers compute figures of those before.

        Summarise a system before the next one is measured: the workers then rest while its first
        reconstructions are timed.

        Args:
          name: of the system, for the log.
          reconstruct: the system.
          take: gets each reconstruction of the first seed, in order, and need not keep them all.

        Raises:
          InputError: of `reconstruct` or the workers.
        """
        seconds: list[float] = []
        waiting: list[tuple[np.ndarray, np.ndarray]] = []
        figures: list[Future[dict[str, float]]] = []
        count = len(self.clips)
        total = len(self.seeds) * count
        with progress(total, 'piece', f'{count} pieces with {name}') as advance:
            for place, (seed, clip) in enumerate(itertools.product(self.seeds, self.clips)):
                begin = time.monotonic()
                waveform = reconstruct(clip.waveform, seed)
                seconds.append((time.monotonic() - begin) / clip.waveform.size)
                waiting.append((clip.waveform, waveform))
                if place + 1 >= min(_TIMED, total):
                    figures += map(self._compute, *zip(*waiting, strict=True))
                    waiting.clear()
                if seed == self.seeds[0]:
                    take(place, waveform)
                advance()
        by_seed = [figures[first : first + count] for first in range(0, total, count)]
        names = [clip.name for clip in self.clips]
        timed = seconds[1:_TIMED]  # the first piece waits for programs to compile
        return Measured(float(np.median(timed)) if timed else math.nan, names, by_seed)

    def _compute(self, original: np.ndarray, estimate: np.ndarray) -> 'Future[dict[str, float]]':
        arguments = original, estimate, self.sample_rate, self.metrics
        return self.workers.submit(measure_named, *arguments)

"""Statistics of figures over clips."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_ROUNDS = 10_000
_LEVEL = 0.95


def mean(values: np.ndarray) -> float:
    """The mean over the finite values of `[N]`, nan without any."""
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    return float(np.mean(finite)) if finite.size else float('nan')


def interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Bootstrap interval of 95 % of the mean over the finite values of `[N]`.

    Percentiles of the means of 10,000 resamples with replacement (Efron 1979), of a fixed seed.

    Returns:
      Its ends; nan for fewer than two values.
    """
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    if finite.size < 2:
        return float('nan'), float('nan')
    random = np.random.default_rng(seed)
    draws = (random.integers(finite.size, size=(100, finite.size)) for _ in range(_ROUNDS // 100))
    means = [np.mean(finite[places], axis=1) for places in draws]  # few at a time, for memory
    low, high = np.percentile(means, [50 * (1 - _LEVEL), 50 * (1 + _LEVEL)])
    return float(low), float(high)


def summarise(
    clips: Sequence[str], figures: Sequence[Sequence[Mapping[str, float]]]
) -> dict[str, Any]:
    """A system's statistics for a report.

    Args:
      clips: their names.
      figures: of each seed and clip, by metric.

    Returns:
      `clips`, the figures of each clip, means over seeds; their `mean` with its `interval`;
      `counted`, the clips whose figure is finite; `seed_spread`, the standard deviation of the mean
      over seeds.
    """
    names = list(figures[0][0])
    values = {name: np.array([[row[name] for row in rows] for rows in figures]) for name in names}
    means = {name: np.mean(each, axis=0) for name, each in values.items()}  # [clips]
    return {
        'mean': {name: mean(each) for name, each in means.items()},
        'interval': {name: interval(each) for name, each in means.items()},
        'counted': {name: int(np.sum(np.isfinite(each))) for name, each in means.items()},
        'seed_spread': {
            name: float(np.std([mean(rows) for rows in each])) for name, each in values.items()
        },
        'clips': {
            clip: {name: float(each[number]) for name, each in means.items()}
            for number, clip in enumerate(clips)
        },
    }

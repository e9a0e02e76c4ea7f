"""Taking turns: what is compared runs A B A B, so that what else the machine does meets all."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_LEAST_TURN = 1.0  # seconds


def alternate(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Runs each way once a round; each returns the seconds that it took. They are warm already."""
    seconds = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            seconds[name].append(run())
    return seconds


def lasting(run: Callable[[], float]) -> float:
    """Mean seconds of a run that is repeated until a turn is long enough to be told from noise."""
    total, runs = 0.0, 0
    while total < _LEAST_TURN:
        total += run()
        runs += 1
    return total / runs


def times(run: Callable[[], Any]) -> Callable[[], float]:
    """What runs a function and returns its seconds."""

    def timed() -> float:
        begin = time.perf_counter()
        run()
        return time.perf_counter() - begin

    return timed


def medians(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each way's rounds, to four digits."""
    return {name: rounded(statistics.median(rounds)) for name, rounds in values.items()}


def times_as_fast(
    seconds: Mapping[str, Sequence[float]], ours: str, other: str
) -> dict[str, float | list[float]]:
    """The other's seconds over ours, of each round, and the median of that."""
    ratios = [theirs / own for own, theirs in zip(seconds[ours], seconds[other], strict=True)]
    return {
        'median': rounded(statistics.median(ratios)),
        'by_round': [rounded(ratio) for ratio in ratios],
    }


def rounded(value: float) -> float:
    """To four digits."""
    return float(f'{value:.4g}')

"""Seconds, memory and peak speed, measured fairly.

Ways that are compared take turns (A B A B), so that the machine's other load meets all of them.
"""

import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_LEAST_TURN = 1.0  # seconds
_FORGET_PEAK = '5'  # see proc(5), clear_refs
_PRODUCTS = 3


def alternate(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Runs each way once a round; ways return their seconds and are warm already."""
    seconds = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            seconds[name].append(run())
    return seconds


def lasting(run: Callable[[], float]) -> float:
    """Mean seconds of runs that together take at least a second."""
    total, runs = 0.0, 0
    while total < _LEAST_TURN:
        total += run()
        runs += 1
    return total / runs


def timed(run: Callable[[], Any]) -> Callable[[], float]:
    """Makes a function that runs another and returns its seconds."""

    def measure() -> float:
        begin = time.perf_counter()
        run()
        return time.perf_counter() - begin

    return measure


def medians(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each way's rounds."""
    return {name: rounded(statistics.median(rounds)) for name, rounds in values.items()}


def times_as_fast(
    seconds: Mapping[str, Sequence[float]], ours: str, other: str
) -> dict[str, float | list[float]]:
    """The other's seconds over ours, by round, and their median."""
    ratios = [theirs / own for own, theirs in zip(seconds[ours], seconds[other], strict=True)]
    return {
        'median': rounded(statistics.median(ratios)),
        'by_round': [rounded(ratio) for ratio in ratios],
    }


def rounded(value: float) -> float:
    """Rounds to four digits."""
    return float(f'{value:.4g}')


def forget_peak() -> None:
    """Restarts the peak of this process's memory from what it holds now."""
    pathlib.Path('/proc/self/clear_refs').write_text(_FORGET_PEAK)


def peak_bytes() -> int:
    """The peak of this process's resident memory."""
    return _status('VmHWM')


def resident_bytes() -> int:
    """This process's resident memory."""
    return _status('VmRSS')


def _status(field: str) -> int:
    lines = pathlib.Path('/proc/self/status').read_text().splitlines()
    line = next(line for line in lines if line.startswith(f'{field}:'))
    return int(line.split()[1]) * 1024


def fastest_product(product: Callable[[int], Callable[[], object]], device: str) -> float:
    """Peak floating-point operations a second in products of random N x N matrices.

    Random, since a GPU multiplies equal numbers with less energy and so at a higher clock.

    Args:
      product: makes, for a size N, a function that multiplies and waits for the result.
      device: 'cpu' or 'cuda'.
    """
    rates = []
    for size in (1024, 2048, 3072) if device == 'cpu' else (4096, 8192, 16384):
        run = product(size)
        run()  # compiles
        for _ in range(_PRODUCTS):
            rates.append(2 * size**3 / timed(run)())
    return max(rates)

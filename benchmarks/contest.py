"""Finds each side's fastest way of doing the same, and has the fastest ways take turns."""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks import timing
from benchmarks.remote import Failed, Remote
from m2l_jax.interface.errors import InputError

DEFAULT = 'package default'
BEST = 'package best'

_SLOW = 10.0  # seconds of a trial run that is not repeated


@dataclasses.dataclass(frozen=True)
class Way:
    """One way of doing it: an object in its own process.

    Its `run(*arguments)` returns the seconds that it took. `forget_peak()` is called before the
    rounds; `facts()` after them returns further figures, such as the peak of memory.

    Attributes:
      name: in tables and JSON.
      make: see `Remote`.
      options: arguments of the object, by name.
      arguments: of `run`.
    """

    name: str
    make: str
    options: tuple[tuple[str, Any], ...]
    arguments: tuple[Any, ...]

    def start(self, budget: float | None = None) -> Remote:
        """Makes the object; see `Remote`."""
        return Remote(self.make, dict(self.options), budget)

    def run(self, remote: Remote) -> float:
        """Runs once and returns the seconds."""
        return remote.call('run', *self.arguments)

    def turn(self, remote: Remote) -> float:
        """Runs for at least a second and returns the mean seconds."""
        return timing.lasting(lambda: self.run(remote))


Trials = dict[Way, float | str]
Facts = dict[Way, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Contest:
    """The entrants.

    Attributes:
      ours: this project's ways in groups; the fastest of each group takes part.
      package: the package's ways; the fastest takes part.
      default: the package's way that its user gets; it takes part too.
    """

    ours: Mapping[str, Sequence[Way]]
    package: Sequence[Way]
    default: Way

    def hold(self, turns: int, budget: float | None) -> dict[str, Any]:
        """Tries the ways of each group with a choice, and has the fastest take turns.

        If every way of the package fails on trial, its default counts as its best.

        Args:
          turns: of each entrant.
          budget: seconds for each trial run; None for no limit.

        Returns:
          Figures for JSON: `tried` has seconds or a failure by way; `ways`, median `seconds`,
          `seconds_by_round` and `facts` are by group, `DEFAULT` or `BEST`; `times_as_fast` has our
          groups over both of the package's.

        Raises:
          InputError: if all ways of one of our groups fail, or the default does.
        """
        with_choice = [ways for ways in self.ours.values() if len(ways) > 1]
        if list(self.package) != [self.default]:
            with_choice.insert(0, self.package)
        trials = try_out([way for ways in with_choice for way in ways], budget)
        entrants = {name: self._fastest(name, ways, trials) for name, ways in self.ours.items()}
        entrants[DEFAULT] = self.default
        finished = [way for way in self.package if isinstance(trials.get(way), float)]
        entrants[BEST] = min(finished, key=trials.get, default=self.default)
        seconds, facts = compete(entrants, turns)
        return {
            'tried': {way.name: outcome for way, outcome in trials.items()},
            'ways': {name: way.name for name, way in entrants.items()},
            'seconds': timing.medians(seconds),
            'seconds_by_round': {
                name: [timing.rounded(value) for value in values]
                for name, values in seconds.items()
            },
            'facts': facts,
            'times_as_fast': {
                f'{name} over {other}': timing.times_as_fast(seconds, name, other)
                for name in self.ours
                for other in (DEFAULT, BEST)
            },
        }

    @staticmethod
    def _fastest(name: str, ways: Sequence[Way], trials: Trials) -> Way:
        if len(ways) == 1:
            return ways[0]
        finished = [way for way in ways if isinstance(trials[way], float)]
        if not finished:
            outcomes = '; '.join(f'{way.name}: {trials[way]}' for way in ways)
            raise InputError(f'{name} cannot run ({outcomes})')
        return min(finished, key=trials.get)


def ratios(figures: Mapping[str, Any], name: str) -> list[float | str]:
    """Median times as fast over `DEFAULT` and `BEST`, for a table; '' for the package itself."""
    over = [f'{name} over {other}' for other in (DEFAULT, BEST)]
    return [figures['times_as_fast'].get(each, {'median': ''})['median'] for each in over]


def try_out(ways: Iterable[Way], budget: float | None) -> Trials:
    """Warm seconds of each way, or the reason of its failure.

    Ways that differ in the arguments of `run` alone share a process.
    """
    groups: dict[tuple, list[Way]] = {}
    for way in ways:
        groups.setdefault((way.make, way.options), []).append(way)
    trials: Trials = {}
    for group in groups.values():
        remaining = list(group)
        while remaining:  # a failure may have ended the shared process
            try:
                with remaining[0].start(budget) as remote:
                    while remaining:
                        _note(trials, remaining[0], _shortest_run(remaining[0], remote))
                        remaining.pop(0)
            except Failed as failure:
                _note(trials, remaining.pop(0), str(failure))
    return trials


def _shortest_run(way: Way, remote: Remote) -> float:
    way.run(remote)  # compiles
    seconds = way.run(remote)
    return seconds if seconds >= _SLOW else min(seconds, way.run(remote))


def _note(trials: Trials, way: Way, outcome: float | str) -> None:
    trials[way] = outcome
    text = outcome if isinstance(outcome, str) else f'{outcome:.4g} s'
    print(f'tried {way.name}: {text}', file=sys.stderr, flush=True)


def compete(
    entrants: Mapping[str, Way], turns: int
) -> tuple[dict[str, list[float]], dict[str, dict[str, Any]]]:
    """Seconds by turn, and facts, of each entrant; a way that enters twice runs once.

    All entrants stay in memory; if they do not fit, as on a small GPU, each turn has its own
    process.

    Raises:
      InputError: if one fails in its own process too.
    """
    ways = dict.fromkeys(entrants.values())
    try:
        try:
            seconds, facts = _side_by_side(ways, turns)
        except Failed as failure:
            print(f'not side by side: {failure}', file=sys.stderr, flush=True)
            seconds, facts = _one_at_a_time(ways, turns)
    except Failed as failure:
        names = ', '.join(way.name for way in ways)
        raise InputError(f'of {names}, one cannot run: {failure}') from None
    return (
        {name: seconds[way] for name, way in entrants.items()},
        {name: facts[way] for name, way in entrants.items()},
    )


def _side_by_side(ways: Iterable[Way], turns: int) -> tuple[dict[Way, list[float]], Facts]:
    with contextlib.ExitStack() as stack:
        remotes = {way: stack.enter_context(way.start()) for way in ways}
        first = {way: _warm_up(way, remote) for way, remote in remotes.items()}
        runs = {way: functools.partial(way.turn, remote) for way, remote in remotes.items()}
        seconds = timing.alternate(runs, turns)
        return seconds, {way: first[way] | remote.call('facts') for way, remote in remotes.items()}


def _one_at_a_time(ways: Iterable[Way], turns: int) -> tuple[dict[Way, list[float]], Facts]:
    facts = {}

    def run_alone(way: Way) -> float:
        with way.start() as remote:
            first = _warm_up(way, remote)
            seconds = way.turn(remote)
            facts[way] = first | remote.call('facts') | {'alone': True}
        return seconds

    return timing.alternate({way: functools.partial(run_alone, way) for way in ways}, turns), facts


def _warm_up(way: Way, remote: Remote) -> dict[str, float]:
    first = {'first_turn_seconds': way.run(remote)}  # compiles
    remote.call('forget_peak')
    return first

"""Ways of doing the same, of which each side's fastest is found and compared with the other's."""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks import rounds
from benchmarks.remote import Failed, Remote
from m2l_jax.interface.errors import InputError

DEFAULT = 'package default'
BEST = 'package best'

_SLOW = 10.0  # seconds of a run on trial that is not repeated


@dataclasses.dataclass(frozen=True)
class Way:
    """One way of doing it: an object in a process of its own.

    Its `run(*arguments)` does it and returns the seconds; `forget_peak()` and `facts()` are called
    before and after the rounds, the latter for what else is to be told: the peak of memory, say.

    Attributes:
      name: as it is told.
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
        """Does it once, and returns the seconds."""
        return remote.call('run', *self.arguments)

    def turn(self, remote: Remote) -> float:
        """Does it for long enough, and returns the mean seconds."""
        return rounds.lasting(lambda: self.run(remote))


Trials = dict[Way, float | str]
Facts = dict[Way, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Contest:
    """Who runs against whom.

    Attributes:
      ours: this project's ways, in groups of which the fastest of each runs.
      package: the package's ways, of which the fastest runs.
      default: the package's way that its user meets, which runs as well.
    """

    ours: Mapping[str, Sequence[Way]]
    package: Sequence[Way]
    default: Way

    def hold(self, turns: int, budget: float | None) -> dict[str, Any]:
        """Tries every way, but where there is no choice, and has the fastest take turns.

        Where none of the package's comes to an end, its default stands for the best.

        Args:
          turns: of each.
          budget: seconds that each run of a way may take on trial; None for no end.

        Returns:
          What can be written as JSON: `tried`, seconds or a failure of each way; and of those that
          ran, by their group, `DEFAULT` or `BEST`: `ways`, median `seconds`, `seconds_by_round`,
          `facts`, and `times_as_fast` of ours over both of the package's.

        Raises:
          InputError: if no way of a group of ours comes to an end, or the default does not.
        """
        chosen_among = [ways for ways in self.ours.values() if len(ways) > 1]
        if list(self.package) != [self.default]:
            chosen_among.insert(0, self.package)
        trials = try_out([way for ways in chosen_among for way in ways], budget)
        entrants = {name: self._fastest(name, ways, trials) for name, ways in self.ours.items()}
        entrants[DEFAULT] = self.default
        finished = [way for way in self.package if isinstance(trials.get(way), float)]
        entrants[BEST] = min(finished, key=trials.get, default=self.default)
        seconds, facts = compete(entrants, turns)
        return {
            'tried': {way.name: outcome for way, outcome in trials.items()},
            'ways': {name: way.name for name, way in entrants.items()},
            'seconds': rounds.medians(seconds),
            'seconds_by_round': {
                name: [rounds.rounded(value) for value in values]
                for name, values in seconds.items()
            },
            'facts': facts,
            'times_as_fast': {
                f'{name} over {other}': rounds.times_as_fast(seconds, name, other)
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


def try_out(ways: Iterable[Way], budget: float | None) -> Trials:
    """Seconds of each way, once warm, or why there are none.

    Ways that differ in the arguments of `run` alone share a process.
    """
    groups: dict[tuple, list[Way]] = {}
    for way in ways:
        groups.setdefault((way.make, way.options), []).append(way)
    trials: Trials = {}
    for group in groups.values():
        remaining = list(group)
        while remaining:  # one that fails may have ended the process that it shares
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
    told = outcome if isinstance(outcome, str) else f'{outcome:.4g} s'
    print(f'tried {way.name}: {told}', file=sys.stderr, flush=True)


def compete(
    entrants: Mapping[str, Way], turns: int
) -> tuple[dict[str, list[float]], dict[str, dict[str, Any]]]:
    """Seconds of each entrant's turns, and its facts; a way that stands there twice runs once.

    All wait in memory for their turns; where they cannot, on a GPU that is too small, each turn is
    of a process of its own.

    Raises:
      InputError: if one fails by itself too.
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
        seconds = rounds.alternate(runs, turns)
        return seconds, {way: first[way] | remote.call('facts') for way, remote in remotes.items()}


def _one_at_a_time(ways: Iterable[Way], turns: int) -> tuple[dict[Way, list[float]], Facts]:
    facts = {}

    def run_alone(way: Way) -> float:
        with way.start() as remote:
            first = _warm_up(way, remote)
            seconds = way.turn(remote)
            facts[way] = first | remote.call('facts') | {'alone': True}
        return seconds

    return rounds.alternate({way: functools.partial(run_alone, way) for way in ways}, turns), facts


def _warm_up(way: Way, remote: Remote) -> dict[str, float]:
    first = {'first_turn_seconds': way.run(remote)}  # compiles
    remote.call('forget_peak')
    return first

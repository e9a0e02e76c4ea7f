"""Finds each side's fastest way in the same precision, and has the fastest ways take turns."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks import timing
from benchmarks.remote import Remote
from benchmarks.units import Units, Way, note
from m2l_jax.evaluation.parity import measure
from m2l_jax.interface.errors import InputError

OURS = 'ours'
DEFAULT = 'package default'
BEST = 'package best'

_SLOW = 10.0  # seconds of a trial run that is not repeated

Figures = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Match:
    """Ways that compute in the same precision.

    Attributes:
      ours: this project's ways; the fastest takes part.
      package: the package's ways; the fastest takes part.
      default: the package's way that its user gets; it takes part too.
    """

    ours: Sequence[Way]
    package: Sequence[Way]
    default: Way

    @property
    def sides(self) -> tuple[list[Way], list[Way]]:
        """Our ways and the package's, the default first."""
        return list(self.ours), list(dict.fromkeys([self.default, *self.package]))

    @property
    def ways(self) -> list[Way]:
        """The ways of both sides: what must run comes first."""
        ours, package = self.sides
        return ours + package

    @property
    def required(self) -> list[Way]:
        """Ways without which there is nothing to compare."""
        return [self.default, *(self.ours if len(self.ours) == 1 else ())]

    def hold(self, units: Units, turns: int) -> Figures:
        """Tries the ways of each side with a choice, and has the fastest take turns.

        Args:
          units: has made ready what can run.
          turns: of each entrant.

        Returns:
          Figures for JSON: `tried` has seconds or a failure by way; `ways`, median `seconds`,
          `seconds_by_round` and `facts` are by `OURS`, `DEFAULT` and `BEST`, where they can run;
          `times_as_fast` has ours over both of the package's; `failed` says why ours or the
          default cannot run.
        """
        trials: dict[Way, float] = {}
        for ways in self.sides:
            if len(ways) > 1:
                trials |= try_out(ways, units)
        ours, package = self.sides
        entrants = {
            OURS: _fastest(ours, trials, units),
            DEFAULT: _fastest([self.default], trials, units),
            BEST: _fastest(package, trials, units),
        }
        entrants = {name: way for name, way in entrants.items() if way}
        units.close(self.ways, but=entrants.values())
        seconds, facts = compete(entrants, turns, units)
        figures = {
            'tried': {
                way.name: units.failures.get(way, trials.get(way))
                for way in self.ways
                if way in units.failures or way in trials
            },
            'ways': {name: entrants[name].name for name in seconds},
            'seconds': timing.medians(seconds),
            'seconds_by_round': {
                name: [timing.rounded(value) for value in values]
                for name, values in seconds.items()
            },
            'facts': facts,
            'times_as_fast': {
                f'over {other}': timing.times_as_fast(seconds, OURS, other)
                for other in (DEFAULT, BEST)
                if OURS in seconds and other in seconds
            },
        }
        lost = [
            f'{name} cannot run ({_reasons(ways, units)})'
            for name, ways in ((OURS, ours), (DEFAULT, [self.default]))
            if name not in seconds
        ]
        return figures | ({'failed': '; '.join(lost)} if lost else {})


def hold(matches: Mapping[str, Match], turns: int, units: Units) -> dict[str, Figures]:
    """Holds matches, named 'float32' or otherwise; see `Match.hold`.

    Where several processes get ready at once, all matches' do so before the first turn.

    Returns:
      The matches' figures; `latents_snr` has dB by way, against latents of the same side in the
      match 'float32', where there is one.
    """
    figures = {}
    if units.side_by_side > 1:
        every = matches.values()
        first = [way for match in every for way in [*match.ours, match.default]]
        rest = [way for match in every for way in match.package]
        units.prepare(first + rest, required=[way for match in every for way in match.required])
    for name, match in matches.items():
        units.prepare(match.ways, match.required)
        figures[name] = match.hold(units, turns)
        units.close(match.ways)
    for name, match in matches.items():
        if name != 'float32' and 'float32' in matches:
            figures[name]['latents_snr'] = _latents_snr(match, matches['float32'], units)
    return figures


def _latents_snr(match: Match, reference: Match, units: Units) -> dict[str, float]:
    ratios = {}
    for ways, others in zip(match.sides, reference.sides, strict=True):
        known = (units.latents.get(way) for way in others)
        expected = next((latents for latents in known if latents is not None), None)
        for way in ways:
            latents = units.latents.get(way)
            if expected is not None and latents is not None:
                snr = measure('latents', latents, expected, 'bfloat16').snr
                ratios[way.name] = timing.rounded(snr)
                note(f'latents of {way.name}: {snr:.1f} dB against float32')
    return ratios


def ratios(figures: Figures, name: str) -> list[float | str]:
    """Median times as fast over `DEFAULT` and `BEST`, for a table; '' for the package itself."""
    over = [figures['times_as_fast'].get(f'over {each}', {}) for each in (DEFAULT, BEST)]
    return [each.get('median', '') if name == OURS else '' for each in over]


def snr(figures: Figures, name: str) -> float | str:
    """Decibels of an entrant's latents, for a table; '' where there are none."""
    return figures.get('latents_snr', {}).get(figures['ways'][name], '')


def failures(precisions: Mapping[str, Figures]) -> Iterator[str]:
    """Descriptions of matches that could not be held."""
    for name, figures in precisions.items():
        if 'failed' in figures:
            yield f'{name}: {figures["failed"]}'


def try_out(ways: Iterable[Way], units: Units) -> dict[Way, float]:
    """Warm seconds of each way that is ready and does not fail."""
    trials = {}
    for way in ways:
        if way not in units:
            continue
        try:
            trials[way] = _shortest_run(way, units.remote(way))
        except InputError as failure:
            units.fail(way, str(failure))
        else:
            note(f'tried {way.name}: {trials[way]:.4g} s')
    return trials


def _shortest_run(way: Way, remote: Remote) -> float:
    seconds = way.run(remote)
    if seconds < _SLOW:
        seconds = min(seconds, way.run(remote))
    remote.call('limit_memory', 1.0)  # leaves room for the next
    return seconds


def _fastest(ways: Sequence[Way], trials: Mapping[Way, float], units: Units) -> Way | None:
    """The fastest of those that are ready; else the first that may run alone; None if none may."""
    ready = [way for way in ways if way in units]
    alone = (way for way in ways if units.lacks_memory(way))
    return min(ready, key=lambda way: trials.get(way, 0.0), default=next(alone, None))


def _reasons(ways: Sequence[Way], units: Units) -> str:
    return '; '.join(f'{way.name}: {units.failures[way]}' for way in ways if way in units.failures)


def compete(
    entrants: Mapping[str, Way], turns: int, units: Units
) -> tuple[dict[str, list[float]], dict[str, Figures]]:
    """Seconds by turn, and facts of the last, of each entrant; one that enters twice runs once.

    All entrants stay in memory; if they do not fit, as on a small GPU, each turn has its own
    process. One that fails in its own process too is left out.
    """
    facts: dict[Way, Figures] = {}

    def keep(way: Way, turn: tuple[float, Figures], **more: Any) -> float:
        facts[way] = more | turn[1]
        return turn[0]

    def run_ready(way: Way) -> float:
        return keep(way, way.turn(units.remote(way)), first_turn_seconds=units.first_seconds[way])

    def run_alone(way: Way) -> float:
        try:
            if way not in units.failures:
                with way.start() as remote:
                    first = way.run(remote)  # compiles
                    turn = way.turn(remote)
                return keep(way, turn, first_turn_seconds=first, alone=True)
        except InputError as failure:
            units.fail(way, str(failure))
        return math.nan

    def alternate(run: Callable[[Way], float]) -> dict[Way, list[float]]:
        ways = dict.fromkeys(entrants.values())
        return timing.alternate({way: functools.partial(run, way) for way in ways}, turns)

    try:
        seconds = alternate(run_ready)
    except InputError as failure:
        note(f'not side by side: {failure}')
        units.close_all()
        for way in entrants.values():
            units.failures.pop(way, None)
        seconds = alternate(run_alone)
    present = {name: way for name, way in entrants.items() if way not in units.failures}
    return (
        {name: seconds[way] for name, way in present.items()},
        {name: facts[way] for name, way in present.items()},
    )

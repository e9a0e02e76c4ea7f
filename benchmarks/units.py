"""Ways of doing the same, in processes that start and compile side by side, then wait for turns."""

import concurrent.futures
import dataclasses
import math
import re
import sys
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Self

import numpy as np

from benchmarks import timing
from benchmarks.remote import Failed, Remote
from m2l_jax.interface.errors import InputError

LATE = 'not ready in time'

_OUT_OF_MEMORY = re.compile('out of memory|RESOURCE_EXHAUSTED|ALLOC_FAILED|[Aa]utotun')
_SHARED = 0.9  # of a GPU's memory; processes that wait keep weights and a context each


@dataclasses.dataclass(frozen=True)
class Way:
    """One way of doing something: an object in its own process.

    The object has these methods:

      run(*arguments): the seconds that it took.
      latents(): those of the first run, `[rows, channels, frames]`; None where it gave none.
      limit_memory(share): frees what is cached on a GPU, and takes no more than a share of it.
      forget_peak(): restarts the peak of memory, before each turn.
      facts(): further figures after a turn, such as the peak of memory.

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

    @property
    def process(self) -> tuple[Any, ...]:
        """The key of ways that can share a process."""
        return self.make, self.options

    def start(self, budget: float | None = None) -> Remote:
        """Makes the object; see `Remote`."""
        return Remote(self.make, dict(self.options), budget)

    def run(self, remote: Remote) -> float:
        """Runs once and returns the seconds."""
        return remote.call('run', *self.arguments)

    def turn(self, remote: Remote) -> tuple[float, dict[str, Any]]:
        """Runs for at least a second; returns the mean seconds, and the facts."""
        remote.call('forget_peak')
        seconds = timing.lasting(lambda: self.run(remote))
        return seconds, remote.call('facts')


class Units:
    """Ways that are ready to be timed; a context manager that ends their processes.

    Args:
      side_by_side: processes that get ready at once; on a GPU each may take its share of memory.
      budget: seconds for each call, with compiling; None for no limit.
      deadline: on the clock of `time.monotonic`; what is not ready then is given up.

    Attributes:
      failures: the reason why a way cannot run.
      first_seconds: of each way's first run, which compiles.
      latents: that each way's network gave in its first run; None where it gave none.
    """

    def __init__(
        self, side_by_side: int = 1, budget: float | None = None, deadline: float = math.inf
    ):
        self.side_by_side, self._budget, self._deadline = side_by_side, budget, deadline
        self.failures: dict[Way, str] = {}
        self.first_seconds: dict[Way, float] = {}
        self.latents: dict[Way, np.ndarray | None] = {}
        self._remotes: dict[Any, Remote] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close_all()

    def __contains__(self, way: Way) -> bool:
        return way.process in self._remotes and way not in self.failures

    def remote(self, way: Way) -> Remote:
        """The process of a way.

        Raises:
          Failed: if it is not ready.
        """
        if way not in self:
            raise Failed(self.failures.get(way, 'not ready'))
        return self._remotes[way.process]

    def lacks_memory(self, way: Way) -> bool:
        """True of a way that might run if no other did."""
        return bool(_OUT_OF_MEMORY.search(self.failures.get(way, '')))

    def prepare(self, ways: Iterable[Way], required: Collection[Way] = ()) -> None:
        """Has ways run once that are not ready yet and have not failed.

        Ways that differ in the arguments of `run` alone share a process. One that lacks memory
        gets a second chance when no other gets ready.

        Args:
          ways: in this order; those that come first are ready first.
          required: their processes have no budget.
        """
        groups: dict[Any, list[Way]] = {}
        for way in ways:
            if way not in self and way not in self.failures:
                groups.setdefault(way.process, []).append(way)
        unlimited = {way.process for way in required}

        def prepare(group: Sequence[Way], share: float = 1.0) -> None:
            self._prepare(group, None if group[0].process in unlimited else self._budget, share)

        if self.side_by_side == 1:
            for group in groups.values():
                prepare(group)
            return
        share = _SHARED / self.side_by_side
        with concurrent.futures.ThreadPoolExecutor(self.side_by_side) as pool:
            list(pool.map(lambda group: prepare(group, share), groups.values()))
        for group in groups.values():
            lacking = [way for way in group if self.lacks_memory(way)]
            self.close(lacking)
            for way in lacking:
                del self.failures[way]
            if lacking:
                prepare([way for way in group if way not in self.failures])

    def fail(self, way: Way, reason: str) -> None:
        """Notes that a way cannot run."""
        self.failures[way] = reason
        note(f'{way.name}: {reason}')

    def close(self, ways: Iterable[Way], but: Iterable[Way] = ()) -> None:
        """Ends the processes of ways, but not of some."""
        self._end({way.process for way in ways} - {way.process for way in but})

    def close_all(self) -> None:
        """Ends all processes."""
        self._end(list(self._remotes))

    def _end(self, processes: Iterable[Any]) -> None:
        for process in processes:
            if process in self._remotes:
                self._remotes.pop(process).close()

    def _prepare(self, ways: Sequence[Way], budget: float | None, share: float) -> None:
        """Runs the ways of a process, and starts it again where one has failed."""
        remaining = list(ways)
        while remaining:
            remote, begun = None, remaining
            try:
                remote = remaining[0].start(self._left(budget))
                remote.call('limit_memory', share)
                for way in remaining:
                    begun = [way]
                    remote.budget = self._left(budget)
                    self.first_seconds[way] = way.run(remote)
                    self.latents[way] = remote.call('latents')
                remote.call('limit_memory', 1.0)
            except InputError as failure:
                if remote is not None:
                    remote.close()
                late = time.monotonic() >= self._deadline
                for way in begun:
                    self.fail(way, LATE if late else str(failure))
                remaining = [way for way in remaining if way not in begun]
            else:
                remote.budget = budget
                self._remotes[ways[0].process] = remote
                note(f'ready: {", ".join(way.name for way in remaining)}')
                return

    def _left(self, budget: float | None) -> float | None:
        """Seconds for a call that begins now; None for no limit."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise Failed(LATE)
        seconds = min(left, math.inf if budget is None else budget)
        return None if seconds == math.inf else seconds


def note(text: str) -> None:
    """Prints a line of progress."""
    print(text, file=sys.stderr, flush=True)

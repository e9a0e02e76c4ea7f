"""One way of doing something, in its own process."""

import dataclasses
from typing import Any

from benchmarks import timing
from benchmarks.remote import Remote


@dataclasses.dataclass(frozen=True)
class Way:
    """One way of doing it: an object in its own process.

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
        """What ways have in common that can share a process."""
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

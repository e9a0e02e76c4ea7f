"""How far a corpus job is, and what came of it at the end."""

import dataclasses
import logging
import threading
import time
from collections.abc import Sequence

from m2l_jax.audio.suffixes import NONE_LEFT_OUT, LeftOut
from m2l_jax.corpus.plan import Shard
from m2l_jax.corpus.summary import ShardSummary
from m2l_jax.interface.progress import ProgressBar, describe_duration

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class RunReport:
    """What a process has done of a job.

    Attributes:
      seconds: that it took, after the model was loaded.
      shards: done.
      files: done in them.
      failures: files in them that could not be done.
      warnings: about files in them that were read.
      hours: of audio in the files done.
      times_real_time: the audio's duration over the time that it took.
      latents: vectors, of all channels.
      shards_before: that were done already when it began.
      shards_missing: of its share, where it was stopped.
      left_out: of the whole input, for their suffixes.
    """

    seconds: float
    shards: int
    files: int
    failures: int
    warnings: int
    hours: float
    times_real_time: float
    latents: int
    shards_before: int
    shards_missing: int
    left_out: LeftOut

    def describe(self) -> str:
        """A line or two for people."""
        left_out = f'\n{self.left_out.describe()}' if self.left_out.files else ''
        if not self.shards and not self.shards_missing:
            return (
                f'nothing to do: all {self.shards_before} shards were done before. failures.csv '
                f'names the files that could not be done; --verify checks the others{left_out}'
            )
        before = f'\n{self.shards_before} shards were done before' if self.shards_before else ''
        failures = f'{self.failures} failures{" (failures.csv)" if self.failures else ""}'
        warnings = f', {self.warnings} warnings (warnings.csv)' if self.warnings else ''
        missing = f'\n{self.shards_missing} shards are missing' if self.shards_missing else ''
        return (
            f'{self.files} files, {describe_duration(self.hours * 3600)} of audio in '
            f'{describe_duration(self.seconds)}: {self.times_real_time:.1f} times real time, '
            f'{self.latents} latent vectors, {failures}{warnings}'
            f'{before}{missing}{left_out}'
        )


class Progress:
    """Counts what is done of a process's share of the shards, and shows it.

    Time left is by bytes of input, the only thing that the plan knows. Threads may share one.
    """

    def __init__(self, shards: Sequence[Shard], left_out: LeftOut = NONE_LEFT_OUT):
        """Takes all shards of the share, those of an earlier run too; does not begin yet."""
        self._share = tuple(shards)
        self._left_out = left_out
        self._lock = threading.Lock()
        counted = ('shards', 'files', 'failures', 'warnings', 'latents', 'seconds')
        self._done = dict.fromkeys(counted, 0)
        self._under_way: dict[int, float] = {}  # seconds told of shards that are not done
        self._files = sum(len(shard.items) for shard in self._share)
        self._files_past = 0
        self._before = 0
        self._begin = time.monotonic()
        self._bar: ProgressBar | None = None

    def start(self, missing: Sequence[Shard]) -> None:
        """Begins to count the time; all shards but these were done before."""
        total, left = (sum(shard.bytes for shard in part) for part in (self._share, missing))
        self._before = len(self._share) - len(missing)
        self._files_past = self._files - sum(len(shard.items) for shard in missing)
        self._begin = time.monotonic()
        self._bar = ProgressBar(total, 'B', total - left)

    def tell(self, shard: Shard, seconds: float) -> None:
        """Counts audio, in seconds, of a shard that is being worked on."""
        with self._lock:
            self._under_way[shard.number] = self._under_way.get(shard.number, 0) + seconds
            self._show(0)

    def show(self) -> None:
        """Shows the same once more, for the time has gone on."""
        with self._lock:
            self._show(0)

    def drop(self, shard: Shard) -> None:
        """Takes back what was told of a shard, of which nothing will remain."""
        with self._lock:
            self._under_way.pop(shard.number, None)

    def after(self, shard: Shard, summary: ShardSummary) -> None:
        """Counts a shard that is done, and names the files in it that could not be."""
        for source, reason in summary.failures:
            _logger.warning('skipped %s: %s', source, reason)
        for source, reason in summary.warnings:
            _logger.warning('%s: %s', source, reason)
        with self._lock:
            self._under_way.pop(shard.number, None)
            self._done['shards'] += 1
            self._done['files'] += summary.files
            self._done['failures'] += len(summary.failures)
            self._done['warnings'] += len(summary.warnings)
            self._done['latents'] += summary.latents
            self._done['seconds'] += summary.seconds
            self._files_past += len(shard.items)
            self._show(shard.bytes)

    def close(self) -> RunReport:
        """Ends the display, and returns what was done since the start."""
        took = time.monotonic() - self._begin
        if self._bar is not None:
            self._bar.close()
        audio = self._done['seconds']
        return RunReport(
            seconds=took,
            shards=self._done['shards'],
            files=self._done['files'],
            failures=self._done['failures'],
            warnings=self._done['warnings'],
            hours=audio / 3600,
            times_real_time=audio / took if took else 0.0,
            latents=self._done['latents'],
            shards_before=self._before,
            shards_missing=len(self._share) - self._before - self._done['shards'],
            left_out=self._left_out,
        )

    def _show(self, size: int) -> None:
        """Shows the figures, after so many more bytes of input."""
        audio = self._done['seconds'] + sum(self._under_way.values())
        speed = audio / max(time.monotonic() - self._begin, 1e-9)
        self._bar.advance(
            size,
            f'{self._files_past} of {self._files} files, {audio / 3600:.2f} h of audio, '
            f'{speed:.1f} times real time, {self._done["failures"]} failures',
        )

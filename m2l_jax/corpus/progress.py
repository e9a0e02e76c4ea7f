"""Progress of a corpus job while it runs, and the report at its end."""

import dataclasses
import logging
import os
import threading
import time
from collections.abc import Sequence

from m2l_jax.audio.suffixes import NONE_LEFT_OUT, LeftOut
from m2l_jax.corpus.plan import Shard, ShardSummary
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.progress import ProgressBar, describe_duration

_logger = logging.getLogger(__name__)


@dataclasses.dataclass
class RunReport:
    """The part of a job that a process has done; `report.json` has the same fields.

    Attributes:
      seconds: time taken, after the model was loaded.
      shards: shards done.
      files: files done in them.
      failures: files in them that could not be done.
      warnings: warnings about files in them that were done.
      hours: hours of audio in the files done.
      times_real_time: the audio's duration over the time taken.
      latents: vectors, over all channels.
      shards_before: shards that were done already when it began.
      shards_missing: shards of its share that are not done, where it was stopped.
      left_out: files of the whole input that were left out for their suffixes.
    """

    seconds: float = 0.0
    shards: int = 0
    files: int = 0
    failures: int = 0
    warnings: int = 0
    hours: float = 0.0
    times_real_time: float = 0.0
    latents: int = 0
    shards_before: int = 0
    shards_missing: int = 0
    left_out: LeftOut = NONE_LEFT_OUT

    def describe(self) -> str:
        """Describes the run in a few lines for people."""
        left_out = f'\n{self.left_out.describe()}' if self.left_out.files else ''
        if not self.shards and not self.shards_missing:
            return (
                f'nothing to do: all {self.shards_before} shards were done before. failures.csv '
                f'names the files that could not be done; --verify checks the others{left_out}'
            )
        latents = f'{self.latents} latent vectors, ' if self.latents else ''
        failures = f'{self.failures} failures{" (failures.csv)" if self.failures else ""}'
        warnings = f', {self.warnings} warnings (warnings.csv)' if self.warnings else ''
        before = f'\n{self.shards_before} shards were done before' if self.shards_before else ''
        missing = f'\n{self.shards_missing} shards are missing' if self.shards_missing else ''
        return (
            f'{self.files} files, {describe_duration(self.hours * 3600)} of audio in '
            f'{describe_duration(self.seconds)}: {self.times_real_time:.1f} times real time, '
            f'{latents}{failures}{warnings}{before}{missing}{left_out}'
        )

    def check_any_done(self, folder: str | os.PathLike[str]) -> None:
        """Raises an InputError if files were worked on, and none could be done."""
        if self.failures and not self.files and not self.shards_before:
            raise InputError(
                f'none of the {self.failures} files could be done: {folder}/failures.csv says why'
            )


class Progress:
    """Counts and shows what is done of a process's share of the shards; threads may share one.

    The time left is estimated by bytes of input, the only thing that the plan knows.
    """

    def __init__(self, shards: Sequence[Shard], left_out: LeftOut = NONE_LEFT_OUT):
        """Takes all shards of the share, those done before too."""
        self._share = tuple(shards)
        self._report = RunReport(left_out=left_out)
        self._lock = threading.Lock()
        self._done_seconds = 0.0  # of audio
        self._under_way: dict[int, float] = {}  # seconds of audio, of shards that are not done
        self._files = sum(shard.files for shard in self._share)
        self._files_past = 0
        self._begin = time.monotonic()
        self._bar: ProgressBar | None = None

    def start(self, missing: Sequence[Shard]) -> None:
        """Starts the clock; all shards but these were done before."""
        total, left = (sum(shard.bytes for shard in part) for part in (self._share, missing))
        self._report.shards_before = len(self._share) - len(missing)
        self._files_past = self._files - sum(shard.files for shard in missing)
        self._begin = time.monotonic()
        self._bar = ProgressBar(total, 'B', total - left)

    def tell(self, shard: Shard, seconds: float) -> None:
        """Counts audio, in seconds, of a shard that is being worked on."""
        with self._lock:
            self._under_way[shard.number] = self._under_way.get(shard.number, 0) + seconds
            self._show(0)

    def show(self) -> None:
        """Shows the same figures again, as time goes on."""
        with self._lock:
            self._show(0)

    def drop(self, shard: Shard) -> None:
        """Takes back the audio of a shard that is not going to be completed."""
        with self._lock:
            self._under_way.pop(shard.number, None)

    def after(self, shard: Shard, summary: ShardSummary) -> None:
        """Counts a shard that is done, and logs its failures and warnings."""
        for source, reason in summary.failures:
            _logger.warning('skipped %s: %s', source, reason)
        for source, reason in summary.warnings:
            _logger.warning('%s: %s', source, reason)
        with self._lock:
            self._under_way.pop(shard.number, None)
            self._report.shards += 1
            self._report.files += summary.files
            self._report.failures += len(summary.failures)
            self._report.warnings += len(summary.warnings)
            self._report.latents += summary.latents
            self._done_seconds += summary.seconds
            self._files_past += shard.files
            self._show(shard.bytes)

    def close(self) -> RunReport:
        """Ends the display, and returns what was done since the start."""
        report, audio = self._report, self._done_seconds
        report.seconds = time.monotonic() - self._begin
        report.hours = audio / 3600
        report.times_real_time = audio / report.seconds if report.seconds else 0.0
        report.shards_missing = len(self._share) - report.shards_before - report.shards
        if self._bar is not None:
            self._bar.close()
        return report

    def _show(self, size: int) -> None:
        """Shows the figures, after `size` more bytes of input."""
        audio = self._done_seconds + sum(self._under_way.values())
        speed = audio / max(time.monotonic() - self._begin, 1e-9)
        self._bar.advance(
            size,
            f'{self._files_past} of {self._files} files, {audio / 3600:.2f} h of audio, '
            f'{speed:.1f} times real time, {self._report.failures} failures',
        )

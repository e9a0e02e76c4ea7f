"""Runs a job: works on its shards, here or on a Ray cluster, commits them and reports."""

import contextlib
import dataclasses
import functools
import logging
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Protocol

from m2l_jax.audio.suffixes import NONE_LEFT_OUT, LeftOut
from m2l_jax.corpus import plan
from m2l_jax.corpus.ledger import Ledger, is_claimed
from m2l_jax.corpus.plan import Advance, Item, RunOptions, RunReport, Shard, ShardSummary
from m2l_jax.interface.errors import InputError, Interrupted, StopRequest
from m2l_jax.interface.paths import new_folder, write_json
from m2l_jax.interface.progress import ProgressBar

_logger = logging.getLogger(__name__)

_LOOK_SECONDS = 5


class Worker(Protocol):
    """Works on shards, in the process that opened the job."""

    def work(self, shard: Shard, advance: Advance) -> ShardSummary:
        """Writes the outputs of a shard; several threads may call it at once.

        The worker calls `advance` with what was done since its last call. It raises
        Interrupted if the shard is to be dropped; the worker lets that through.

        Raises:
          InputError, OSError: if no shard can be worked on, e.g. for lack of space. The summary
            lists the errors of single files instead.
        """


class Job(Protocol):
    """The work on shards; it is pickled to travel to other machines."""

    def open(self) -> Worker:
        """Loads what the work needs; raises an InputError if that fails."""

    def complete(self, summaries: Iterable[ShardSummary]) -> None:
        """Finishes the output once all shards are done; may be called again."""


class Progress:
    """Counts and shows the work done on a process's shards; several threads may use it.

    The time left is estimated from bytes of input, the only size that the plan knows.
    """

    def __init__(
        self, shards: Sequence[Shard], left_out: LeftOut = NONE_LEFT_OUT, files_before: int = 0
    ):
        """Takes all shards of this process, those done before too, and files done in those."""
        self._shards = tuple(shards)
        self._report = RunReport(left_out=left_out, files_before=files_before)
        self._lock = threading.RLock()
        self._done_seconds = 0.0  # of audio
        self._under_way: dict[int, tuple[float, float]] = {}  # seconds and bytes, by shard
        self._begin = time.monotonic()
        self._bar: ProgressBar | None = None

    def start(self, missing: Sequence[Shard]) -> None:
        """Starts the clock; all shards but `missing` were done before."""
        total, left = (sum(shard.bytes for shard in part) for part in (self._shards, missing))
        self._report.shards_before = len(self._shards) - len(missing)
        self._files = sum(shard.files for shard in self._shards)
        self._begin = time.monotonic()
        self._bar = ProgressBar(total, 'B', total - left)

    def advance(self, shard: Shard, seconds: float, size: float) -> None:
        """Counts seconds of audio and bytes of input of a shard under way."""
        with self._lock:
            old_seconds, old_size = self._under_way.get(shard.number, (0.0, 0.0))
            size = min(size, shard.bytes - old_size)
            self._under_way[shard.number] = old_seconds + seconds, old_size + size
            self.show(size)

    def drop(self, shard: Shard) -> None:
        """Subtracts what was done of a shard that is not completed."""
        with self._lock:
            _, size = self._under_way.pop(shard.number, (0.0, 0.0))
            if size:
                self.show(-size)

    def after(self, shard: Shard, summary: ShardSummary) -> None:
        """Counts a completed shard, and logs its failures and warnings."""
        for source, reason in summary.failures:
            _logger.warning('skipped %s: %s', source, reason)
        for source, reason in summary.warnings:
            _logger.warning('%s: %s', source, reason)
        with self._lock:
            _, size = self._under_way.pop(shard.number, (0.0, 0.0))
            self._report.shards += 1
            self._report.files += summary.files
            self._report.failures += len(summary.failures)
            self._report.warnings += len(summary.warnings)
            self._report.latents += summary.latents
            self._done_seconds += summary.seconds
            self.show(shard.bytes - size)

    def close(self) -> RunReport:
        """Ends the display, and returns the report."""
        report, audio = self._report, self._done_seconds
        report.seconds = time.monotonic() - self._begin
        report.hours = audio / 3600
        report.times_real_time = audio / report.seconds if report.seconds else 0.0
        report.shards_missing = len(self._shards) - report.shards_before - report.shards
        if self._bar is not None:
            self._bar.close()
        return report

    def show(self, new_bytes: float = 0) -> None:
        """Updates the display, after more bytes of input or only as time goes on."""
        with self._lock:
            audio = self._done_seconds + sum(seconds for seconds, _ in self._under_way.values())
            speed = audio / max(time.monotonic() - self._begin, 1e-9)
            self._bar.advance(
                new_bytes,
                f'{self._files} files, {audio / 3600:.2f} h of audio, {speed:.1f} times real '
                f'time, {self._report.failures} failures',
            )


def run_job(
    job: Job,
    shards: Sequence[Shard],
    settings: Mapping[str, Any],
    folder: str | os.PathLike[str],
    options: RunOptions,
    left_out: LeftOut = NONE_LEFT_OUT,
) -> RunReport:
    """Does the missing shards of a job, or of this process's share.

    Args:
      job: the work.
      shards: the plan of all the input.
      settings: all that the output depends on beside the input, as JSON can hold it.
      folder: for the output: new, empty, or of an earlier run.
      options: the division of the work.
      left_out: files beside the input, for the report.

    Raises:
      InputError: if the folder is another job's, or the work cannot go on.
      Interrupted: if a stop was requested.
    """
    index, count = _parse_share(options)
    ledger = Ledger(folder)
    ledger.claim(settings, [item for shard in shards for item in shard.items])
    mine = plan.share_of(shards, index, count)
    if options.retry_failures:
        ledger.forget_failures(mine)
    ledger.reopen(mine)
    missing = set(ledger.missing(mine))
    before = ledger.summaries(shard for shard in mine if shard not in missing)
    progress = Progress(mine, left_out, sum(summary.files for summary in before))
    name = 'report.json' if count == 1 else f'report-{index}-of-{count}.json'
    try:
        if options.ray is not None:
            from m2l_jax.corpus.ray import run_ray

            run_ray(job, mine, ledger, progress, options)
        else:
            run_local(job, mine, ledger, progress, options.threads)
    except BaseException:
        with contextlib.suppress(InputError):  # a full disk takes no report either
            _report(progress, ledger.folder / name)
        raise
    report = _report(progress, ledger.folder / name)
    if options.share is None and count > 1:  # a process that leaves early ends those joined to it
        _logger.info('done with this share: waiting for the other processes')
        while ledger.missing(shards):
            time.sleep(_LOOK_SECONDS)
    if left := ledger.missing(shards):
        _logger.info('%d of %d shards are left to the other shares', len(left), len(shards))
    else:
        job.complete(ledger.summaries(shards))
        ledger.finish(shards)
    return report


def run_single(job: Job, path: str, folder: str | os.PathLike[str]) -> str:
    """Works on one file, into a folder that may hold anything; returns a line to print.

    Raises:
      InputError: if it cannot be done.
    """
    if is_claimed(folder):
        raise InputError(f'{folder} holds a corpus, with its settings: choose another --output')
    begin = time.monotonic()
    item = Item(os.path.basename(path), path, os.path.getsize(path))
    shard = Shard(0, (item,))
    with new_folder(folder), contextlib.closing(Progress([shard])) as progress:
        worker = job.open()
        progress.start([shard])
        summary = worker.work(shard, functools.partial(progress.advance, shard))
        for _, reason in summary.failures:
            raise InputError(reason if path in reason else f'{path}: {reason}')
    for _, reason in summary.warnings:
        _logger.warning('%s: %s', path, reason)
    output = pathlib.Path(folder, summary.outputs[0].name)
    more = f' and {summary.files - 1} more' if summary.files > 1 else ''
    seconds = time.monotonic() - begin
    return f'{path} -> {output}{more}: {summary.seconds:.1f} s of audio in {seconds:.1f} s'


def run_local(
    job: Job, shards: Sequence[Shard], ledger: Ledger, progress: Progress, threads: int = 2
) -> None:
    """Works in this process on the shards that are not done, `threads` at a time.

    Raises:
      InputError: at the first error that is not one file's; complete shards are kept.
      Interrupted: after SIGTERM or Ctrl-C; the shards under way are dropped.
    """
    missing = ledger.missing(shards)
    stop = StopRequest()
    failed = threading.Event()

    def is_over() -> bool:
        return failed.is_set() or bool(stop)

    def complete(worker: Worker, shard: Shard) -> None:
        if is_over():
            return
        try:
            advance = functools.partial(progress.advance, shard)
            progress.after(shard, work_and_commit(worker, shard, ledger, advance, is_over))
        except Interrupted:
            return
        except BaseException:
            failed.set()
            raise
        finally:
            progress.drop(shard)

    with stop.watched('dropping the shards under way, then stopping'):
        worker = job.open() if missing else None
        progress.start(missing)
        with ThreadPoolExecutor(threads) as pool:
            try:
                for done in as_completed([pool.submit(complete, worker, each) for each in missing]):
                    done.result()
            except BaseException:
                failed.set()  # a second Ctrl-C too
                raise
    check_not_stopped(stop, ledger.missing(missing), shards)


def work_and_commit(
    worker: Worker,
    shard: Shard,
    ledger: Ledger,
    advance: Advance,
    is_stopped: Callable[[], bool],
) -> ShardSummary:
    """Works on a shard and commits it.

    Args:
      worker: as the other arguments, see `Worker.work`.
      is_stopped: asked whenever the worker calls `advance`; True drops the shard.

    Raises:
      InputError: if the work cannot go on.
      Interrupted: if the shard was dropped.
    """

    def advance_or_stop(seconds: float, size: float) -> None:
        if is_stopped():
            raise Interrupted(f'shard {shard.number} is dropped')
        advance(seconds, size)

    try:
        summary = worker.work(shard, advance_or_stop)
        ledger.commit(summary)
    except (InputError, OSError) as error:
        reason = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            reason = f'{error.filename}: {error.strerror}'
        raise InputError(
            f'{reason}; what is complete is kept: put this right, and run the same command again'
        ) from None
    return summary


def check_not_stopped(stop: StopRequest, left: Sequence[Shard], shards: Sequence[Shard]) -> None:
    """Raises Interrupted if a run was asked to stop with some of its shards left."""
    if stop and left:
        raise Interrupted(
            f'stopped with {len(shards) - len(left)} of {len(shards)} shards done: run the same '
            'command again, and it does the others; smaller --shard_megabytes lose less'
        )


def _parse_share(options: RunOptions) -> tuple[int, int]:
    """Returns this process's number and the number of processes."""
    if options.share is not None:
        return plan.parse_share(options.share)
    import jax

    if options.retry_failures and jax.process_count() > 1:
        raise InputError('--retry_failures is for one process, or for each with its own --share')
    return jax.process_index(), jax.process_count()


def _report(progress: Progress, path: pathlib.Path) -> RunReport:
    report = progress.close()
    if report.shards:  # otherwise an earlier run's report says more
        write_json(path, dataclasses.asdict(report))
    return report

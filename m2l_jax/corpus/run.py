"""The run of a job: its shards are worked on, here or on a Ray cluster, and committed."""

import contextlib
import dataclasses
import functools
import logging
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Protocol

from m2l_jax.audio.suffixes import NONE_LEFT_OUT, LeftOut
from m2l_jax.corpus.ledger import Ledger, is_claimed
from m2l_jax.corpus.plan import Item, Shard, ShardSummary, parse_share, share_of
from m2l_jax.corpus.progress import Progress, RunReport
from m2l_jax.interface.errors import InputError, Interrupted, StopRequest
from m2l_jax.interface.paths import new_folder, write_json

_logger = logging.getLogger(__name__)

_LOOK_SECONDS = 5


class Worker(Protocol):
    """Works on shards, in the process where it was made."""

    def work(self, shard: Shard, tell: Callable[[float], None]) -> ShardSummary:
        """Writes the outputs of a shard; threads may call it at once for several.

        Args:
          shard: what to work on.
          tell: to be called with the seconds of audio done since the last call. It raises
            Interrupted where the shard is to be dropped, which must be let through.

        Raises:
          InputError, OSError: if no shard can be worked on, for lack of space or permission. An
            error of one file is noted in the summary instead.
        """


class Job(Protocol):
    """The work on shards; picklable, for it travels to where they are worked on."""

    def open(self) -> Worker:
        """Loads what the work needs; raises an InputError if it cannot be loaded."""

    def complete(self, summaries: Iterable[ShardSummary]) -> None:
        """Finishes the output, once all shards are done; it may be called again."""


@dataclasses.dataclass(frozen=True)
class RayOptions:
    """A cluster, and how much of it an actor takes.

    Attributes:
      address: of the cluster, `auto` for the one that this machine is part of.
      cpus: cores of an actor, beside its accelerator.
      accelerators: whether each actor takes one, if the cluster has any.
    """

    address: str = 'auto'
    cpus: int = 4
    accelerators: bool = True

    def __post_init__(self):
        if self.cpus < 1:
            raise InputError(f'--ray_cpus={self.cpus} must be at least 1')


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """The division of the work. The results don't depend on it.

    Attributes:
      share: `i/n` for the i-th of n shares of the shards; None for all, or for those of this
        process where several have joined through JAX.
      ray: the cluster to work on; None for this process.
      retry_failures: whether shards in which files failed are done again.
      threads: shards that a worker works on at once. With two, one is computed while the other is
        read or written.
    """

    share: str | None = None
    ray: RayOptions | None = None
    retry_failures: bool = False
    threads: int = 2

    def __post_init__(self):
        if self.threads < 1:
            raise InputError(f'--workers={self.threads} must be at least 1')

    @property
    def is_shared(self) -> bool:
        """True if other processes are to work too."""
        return self.share is not None or self.ray is not None


def run_job(
    job: Job,
    shards: Sequence[Shard],
    settings: Mapping[str, Any],
    folder: str | os.PathLike[str],
    options: RunOptions,
    left_out: LeftOut = NONE_LEFT_OUT,
) -> RunReport:
    """Does what is missing of a job, or of this process's share.

    Args:
      job: the work.
      shards: the plan of all the input.
      settings: all that the output depends on beside the input, as JSON can hold it.
      folder: for the output: new, empty, or of an earlier run.
      options: the division of the work.
      left_out: files beside the input, for the report.

    Raises:
      InputError: if the folder is another job's, or the work cannot go on.
      Interrupted: if it was asked to stop.
    """
    index, count = _parse_share(options)
    ledger = Ledger(folder)
    ledger.claim(settings, [item for shard in shards for item in shard.items])
    mine = share_of(shards, index, count)
    if options.retry_failures:
        ledger.forget_failures(mine)
    ledger.reopen(mine)
    progress = Progress(mine, left_out)
    report_name = 'report.json' if count == 1 else f'report-{index}-of-{count}.json'
    with _reported(progress, ledger.folder / report_name) as reports:
        if options.ray is not None:
            from m2l_jax.corpus.ray import run_ray

            run_ray(job, mine, ledger, progress, options.ray, options.threads)
        else:
            run_local(job, mine, ledger, progress, options.threads)
    if options.share is None and count > 1:
        _wait_for_others(ledger, shards)
    left = ledger.missing(shards)
    if left:
        _logger.info('%d of %d shards are left to the other shares', len(left), len(shards))
    else:
        job.complete(ledger.summaries(shards))
        ledger.finish(shards)
    (report,) = reports
    return report


def run_single(job: Job, path: str, folder: str | os.PathLike[str]) -> str:
    """Works on one file by itself, into a folder that may hold anything; returns a line to print.

    Raises:
      InputError: if it cannot be done.
    """
    if is_claimed(folder):
        raise InputError(f'{folder} holds a corpus, with its settings: choose another --output')
    begin = time.monotonic()
    item = Item(os.path.basename(path), path, os.path.getsize(path))
    with new_folder(folder):
        summary = job.open().work(Shard(0, (item,)), lambda seconds: None)
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
    """Works in this process on those of the shards that are not done, `threads` at a time.

    Raises:
      InputError: at the first error that is not one file's; what is complete is kept.
      Interrupted: after SIGTERM or Ctrl-C; the shards under way are dropped.
    """
    missing = ledger.missing(shards)
    stop = StopRequest()
    failed = threading.Event()
    waiting, lock = iter(missing), threading.Lock()

    def is_over() -> bool:
        return failed.is_set() or bool(stop)

    def take_turns(worker: Worker) -> None:
        while not is_over():
            with lock:
                shard = next(waiting, None)
            if shard is None:
                return
            try:
                tell = functools.partial(progress.tell, shard)
                progress.after(shard, work_and_commit(worker, shard, ledger, tell, is_over))
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
                turns = [pool.submit(take_turns, worker) for _ in range(threads)]
                for turn in as_completed(turns):
                    turn.result()
            except BaseException:
                failed.set()  # a second Ctrl-C too
                raise
    check_not_stopped(stop, ledger.missing(missing), shards)


def work_and_commit(
    worker: Worker,
    shard: Shard,
    ledger: Ledger,
    tell: Callable[[float], None],
    is_stopped: Callable[[], bool],
) -> ShardSummary:
    """Works on a shard and commits it.

    Args:
      tell: see `Worker.work`.
      is_stopped: whether the shard is to be dropped; asked whenever the worker calls `tell`.

    Raises:
      InputError: for what ended the work.
      Interrupted: if the shard was dropped.
    """

    def tell_or_stop(seconds: float) -> None:
        if is_stopped():
            raise Interrupted(f'shard {shard.number} is dropped')
        tell(seconds)

    try:
        summary = worker.work(shard, tell_or_stop)
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
            'command again, and it goes on from there'
        )


def _parse_share(options: RunOptions) -> tuple[int, int]:
    """Returns this process's number and the number of processes."""
    if options.share is not None:
        return parse_share(options.share)
    import jax

    if options.retry_failures and jax.process_count() > 1:
        raise InputError('--retry_failures is for one process, or for each with its own --share')
    return jax.process_index(), jax.process_count()


@contextlib.contextmanager
def _reported(progress: Progress, path: pathlib.Path) -> Iterator[list[RunReport]]:
    """Closes the progress, however the work ends, and writes its report."""
    reports: list[RunReport] = []
    try:
        yield reports
    except BaseException:
        # A full disk takes no report either: the error to show is what ended the work.
        with contextlib.suppress(InputError):
            _write_report(path, progress.close())
        raise
    reports.append(progress.close())
    _write_report(path, reports[0])


def _write_report(path: pathlib.Path, report: RunReport) -> None:
    if report.shards:  # else that of an earlier run says more
        write_json(path, dataclasses.asdict(report))


def _wait_for_others(ledger: Ledger, shards: Sequence[Shard]) -> None:
    """Stays until all processes are done: a process that leaves early ends those joined to it."""
    if ledger.missing(shards):
        _logger.info('done with this share: waiting for the other processes')
    while ledger.missing(shards):
        time.sleep(_LOOK_SECONDS)

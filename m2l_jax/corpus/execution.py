"""A corpus job from its beginning to its end: planned, claimed, worked on, and what came of it."""

import contextlib
import dataclasses
import logging
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax

from m2l_jax.audio.suffixes import NONE_LEFT_OUT, LeftOut
from m2l_jax.corpus import manifest
from m2l_jax.corpus.claim import is_claimed
from m2l_jax.corpus.job import Job, Worker
from m2l_jax.corpus.ledger import Ledger
from m2l_jax.corpus.plan import Item, Shard, parse_share, plan_shards, share_of
from m2l_jax.corpus.progress import Progress, RunReport
from m2l_jax.corpus.ray_runner import RayOptions, run_ray
from m2l_jax.corpus.runners import run_local
from m2l_jax.corpus.summary import ShardSummary
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.json_files import write_json
from m2l_jax.interface.paths import new_folder
from m2l_jax.interface.progress import ProgressBar

_logger = logging.getLogger(__name__)

_LOOK_SECONDS = 5


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How the work is shared out; nothing of the results depends on it but the shards.

    Attributes:
      shard_megabytes: of input in a shard, in 10⁶ bytes.
      shard_files: most files in a shard.
      share: `i/n` for the i-th of n shares of the shards; None for all, or for those of this
        process where several have joined.
      ray: the cluster to work on; None for this process.
      retry_failures: whether shards in which files failed are done again.
    """

    shard_megabytes: float
    shard_files: int
    share: str | None = None
    ray: RayOptions | None = None
    retry_failures: bool = False

    @property
    def is_shared(self) -> bool:
        """Whether other processes are to work too."""
        return self.share is not None or self.ray is not None


@dataclasses.dataclass(frozen=True)
class OpenedJob:
    """A job that is worked on where its model is loaded already."""

    worker: Worker

    def open(self) -> Worker:
        """See `job.Job`."""
        return self.worker


def run_job(
    make_job: Callable[[int], Job],
    open_worker: Callable[[Job], Worker],
    items: Sequence[Item],
    settings: Mapping[str, Any],
    folder: str | os.PathLike[str],
    options: RunOptions,
    complete: Callable[[Job, Iterable[ShardSummary]], None] = lambda job, summaries: None,
    left_out: LeftOut = NONE_LEFT_OUT,
) -> RunReport:
    """Does what is missing of a job, or of this process's share.

    Args:
      make_job: the job, when it is known of how many shards.
      open_worker: what works on it in this process.
      items: the input.
      settings: all that the output depends on beside it, as JSON can hold it.
      folder: for the output: new, empty, or of an earlier run.
      options: how.
      complete: called with all summaries once every share is done, before the manifest is written.
      left_out: beside the input, for the report.

    Raises:
      InputError: if the folder is another job's, or the work cannot go on.
      Interrupted: if it was asked to stop.
    """
    shards = plan_shards(items, options.shard_megabytes, options.shard_files)
    index, count = _share(options.share)
    if options.retry_failures and count > 1 and options.share is None:
        raise InputError('--retry_failures is for one process, or for each with its own --shard')
    ledger = Ledger(folder)
    cut = {'shard_megabytes': options.shard_megabytes, 'shard_files': options.shard_files}
    ledger.claim({**settings, **cut}, items)
    mine = share_of(shards, index, count)
    if options.retry_failures:
        ledger.forget_failures(mine)
    ledger.reopen(mine)
    job = make_job(len(shards))
    progress = Progress(mine, left_out)
    with _reported(progress, ledger.folder, index, count) as reports:
        if options.ray is not None:
            run_ray(job, mine, ledger.folder, progress, options.ray)
        else:
            run_local(OpenedJob(open_worker(job)), mine, ledger, progress)
    if options.share is None and count > 1:
        _wait_for_others(ledger, shards)
    left = ledger.missing(shards)
    if left:
        _logger.info('%d of %d shards are left to the other shares', len(left), len(shards))
    else:
        complete(job, ledger.summaries(shards))
        ledger.finish(shards)
    (report,) = reports
    return report


def _share(share: str | None) -> tuple[int, int]:
    """This process's number and how many there are."""
    return (jax.process_index(), jax.process_count()) if share is None else parse_share(share)


@contextlib.contextmanager
def _reported(
    progress: Progress, folder: pathlib.Path, index: int, count: int
) -> Iterator[list[RunReport]]:
    """Closes the progress, however the work ends, and writes its report into the folder."""
    reports: list[RunReport] = []
    path = folder / ('report.json' if count == 1 else f'report-{index}-of-{count}.json')
    try:
        yield reports
    except BaseException:
        # A full disk takes no report either: what ended the work is the error to tell.
        with contextlib.suppress(InputError):
            _write_report(path, progress.close())
        raise
    reports.append(progress.close())
    _write_report(path, reports[0])


def _write_report(path: pathlib.Path, report: RunReport) -> None:
    if report.shards:  # else that of an earlier run says more
        write_json(path, dataclasses.asdict(report))


def _wait_for_others(ledger: Ledger, shards: Sequence[Shard]) -> None:
    """Stays until all processes are done: who leaves early ends those that have joined it."""
    if ledger.missing(shards):
        _logger.info('done with this share: waiting for the other processes')
    while ledger.missing(shards):
        time.sleep(_LOOK_SECONDS)


def run_single(worker: Worker, path: str, folder: str | os.PathLike[str]) -> str:
    """Works on one file by itself, into a folder that may hold anything; returns what to tell.

    Raises:
      InputError: if it cannot be done.
    """
    if is_claimed(folder):
        raise InputError(f'{folder} holds a corpus, with its settings: choose another --output')
    begin = time.monotonic()
    item = Item(os.path.basename(path), path, os.path.getsize(path))
    with new_folder(folder):
        summary = worker.work(Shard(0, (item,)), lambda seconds: None)
        for _, reason in summary.failures:
            raise InputError(reason if path in reason else f'{path}: {reason}')
    for _, reason in summary.warnings:
        _logger.warning('%s: %s', path, reason)
    output = pathlib.Path(folder, summary.outputs[0].name)
    more = f' and {summary.files - 1} more' if summary.files > 1 else ''
    seconds = time.monotonic() - begin
    return f'{path} -> {output}{more}: {summary.seconds:.1f} s of audio in {seconds:.1f} s'


def check_any_done(report: RunReport, folder: str | os.PathLike[str]) -> None:
    """Raises InputError if files were worked on, and not one could be done."""
    if report.failures and not report.files and not report.shards_before:
        raise InputError(
            f'none of the {report.failures} files could be done: {folder}/failures.csv says why'
        )


def verify_job(folder: str | os.PathLike[str]) -> str:
    """Reads again all that a complete job has written; returns what to tell.

    Raises:
      InputError: if it is not complete, or something is not as it was written.
    """
    from m2l_jax.corpus.verification import verify  # TFDS, which takes seconds to import

    totals, outputs, shard_of = manifest.read(folder)
    bar = ProgressBar(totals['bytes'], 'B')
    with contextlib.closing(bar):
        problems = verify(folder, outputs, lambda size: bar.advance(size, 'verified'))
    for name, reason in problems:
        _logger.warning('%s %s', name, reason)
    if problems:
        numbers = sorted({shard_of[name] for name, _ in problems if name in shard_of})
        summaries = ' '.join(Ledger(folder).summary_name(number) for number in numbers)
        raise InputError(
            f'{len(problems)} of {len(outputs)} files in {folder} are not as they were written: '
            f'have them done again by `cd {folder} && rm -f manifest.json {summaries}` and the '
            'command that wrote them'
        )
    return (
        f'{len(outputs)} files with the latents or the audio of {totals["files"]} inputs are as '
        f'they were written; {totals["failures"]} inputs failed'
    )

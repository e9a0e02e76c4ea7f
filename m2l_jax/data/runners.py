"""Where shards are written: in this process, in several on this machine, or by Apache Beam."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import shlex
import signal
import threading
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool

from m2l_jax.data.shards import ShardJob, write_shard
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.progress import ProgressBar


def run_local(jobs: Sequence[ShardJob], workers: int) -> None:
    """Writes shards in so many processes, and shows how far it is.

    Raises:
      InputError: if a shard cannot be written, or a process died.
    """
    with contextlib.closing(_Progress(jobs)) as progress:
        if min(workers, len(jobs)) > 1:
            _run_in_processes(jobs, workers, progress)
        else:
            for job in jobs:
                write_shard(job)
                progress.after_shard(job)


def run_beam(jobs: Sequence[ShardJob], options: str) -> None:
    """Writes shards in an Apache Beam pipeline, whose workers all see the input and the output.

    Args:
      jobs: the shards.
      options: Beam's own flags, as on a command line.

    Raises:
      InputError: if Beam is not installed.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ModuleNotFoundError as error:
        raise InputError(
            f'--runner=beam needs apache-beam (no module {error.name}): install it in an '
            'environment of its own, for it needs protobuf<7'
        ) from None
    with beam.Pipeline(options=PipelineOptions(shlex.split(options))) as pipeline:
        # Without the reshuffle a runner may fuse both steps and write all shards in one worker.
        _ = pipeline | beam.Create(jobs) | beam.Reshuffle() | beam.Map(write_shard)


def _run_in_processes(jobs: Sequence[ShardJob], workers: int, progress: '_Progress') -> None:
    pool = concurrent.futures.ProcessPoolExecutor(
        min(workers, len(jobs)), multiprocessing.get_context('spawn'), _start_worker
    )
    try:
        futures = {pool.submit(write_shard, job): job for job in jobs}
        for future in concurrent.futures.as_completed(futures):
            future.result()
            progress.after_shard(futures[future])
    except BrokenProcessPool:
        raise InputError(
            'a worker process died, perhaps for lack of memory: run the same command again with '
            'fewer --workers; shards that are complete are kept'
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Leaves Ctrl-C to the parent, and ends with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


class _Progress:
    """Counts shards, and the hours of audio that they are made from."""

    def __init__(self, jobs: Sequence[ShardJob]):
        self._total = sum(map(_hours, jobs))
        self._hours = 0.0
        self._bar = ProgressBar(len(jobs), 'shard')

    def after_shard(self, job: ShardJob) -> None:
        self._hours += _hours(job)
        self._bar.advance(1, f'{self._hours:.1f} of {self._total:.1f} h of audio')

    def close(self) -> None:
        self._bar.close()


def _hours(job: ShardJob) -> float:
    """Duration of the files' parts that a shard is made from."""
    segments = sum(piece.stop - piece.first for piece in job.pieces)
    return segments * job.config.hop / job.config.sample_rate / 3600

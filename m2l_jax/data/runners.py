"""Where shards are written: in this process, in several on this machine, or by Apache Beam."""

import concurrent.futures
import multiprocessing
import os
import shlex
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool

from m2l_jax.data.shards import ShardJob, write_shard
from m2l_jax.interface.errors import InputError


def run_local(jobs: Sequence[ShardJob], workers: int, done: Callable[[ShardJob], None]) -> None:
    """Writes shards in so many processes; `done` is called here after each.

    Raises:
      InputError: if a shard cannot be written, or a process died.
    """
    if min(workers, len(jobs)) <= 1:
        for job in jobs:
            write_shard(job)
            done(job)
        return
    pool = concurrent.futures.ProcessPoolExecutor(
        min(workers, len(jobs)), multiprocessing.get_context('spawn'), _start_worker
    )
    try:
        futures = {pool.submit(write_shard, job): job for job in jobs}
        for future in concurrent.futures.as_completed(futures):
            future.result()
            done(futures[future])
    except BrokenProcessPool:
        raise InputError(
            'a worker process died, perhaps for lack of memory: run the same command again with '
            'fewer --workers; shards that are complete are kept'
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


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


def _start_worker() -> None:
    """Leaves Ctrl-C to the parent, and ends with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)

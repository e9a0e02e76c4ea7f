"""Working on the shards of a job in this process; `ray_runner` has the one for a cluster."""

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from m2l_jax.corpus.job import SHARDS_AT_ONCE, Job, Worker, complete, stopped
from m2l_jax.corpus.ledger import Ledger
from m2l_jax.corpus.plan import Shard
from m2l_jax.corpus.progress import Progress
from m2l_jax.interface.errors import Interrupted
from m2l_jax.interface.signals import StopRequest


def run_local(job: Job, shards: Sequence[Shard], ledger: Ledger, progress: Progress) -> None:
    """Works on those of the shards that are not done, two at a time.

    Raises:
      InputError: at the first error that is not one file's; what is complete is kept.
      Interrupted: after SIGTERM or Ctrl-C; the shards under way are dropped.
    """
    missing = ledger.missing(shards)
    stop = StopRequest()
    with stop.watched('dropping the shards under way, then stopping'):
        worker = job.open() if missing else None
        progress.start(missing)
        if worker is not None:
            _work_on(missing, worker, ledger, progress, lambda: bool(stop))
    left = ledger.missing(missing)
    if stop and left:
        raise stopped(len(left), len(shards))


def _work_on(
    missing: Sequence[Shard],
    worker: Worker,
    ledger: Ledger,
    progress: Progress,
    is_stopped: Callable[[], bool],
) -> None:
    """Works on shards until all are done, it is asked to stop, or one has an error."""
    failed = threading.Event()
    queue = _Queue(missing)

    def is_over() -> bool:
        return failed.is_set() or is_stopped()

    def take_turns() -> None:
        for shard in queue:
            if is_over():
                return
            try:
                tell = functools.partial(progress.tell, shard)
                progress.after(shard, complete(worker, shard, ledger, tell, is_over))
            except Interrupted:
                return
            except BaseException:
                failed.set()
                raise
            finally:
                progress.drop(shard)

    with ThreadPoolExecutor(SHARDS_AT_ONCE) as threads:
        try:
            for turns in as_completed([threads.submit(take_turns) for _ in range(SHARDS_AT_ONCE)]):
                turns.result()
        except BaseException:
            failed.set()  # a second Ctrl-C too
            raise


class _Queue:
    """Hands each shard to one of the threads that iterate over it."""

    def __init__(self, shards: Sequence[Shard]):
        self._lock = threading.Lock()
        self._shards = iter(shards)

    def __iter__(self) -> Iterator[Shard]:
        return self

    def __next__(self) -> Shard:
        with self._lock:
            return next(self._shards)

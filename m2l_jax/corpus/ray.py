"""Runs a job on a Ray cluster, whose nodes may be lost at any time.

Each accelerator, or else each set of cores, has an actor, which opens the job once and works on a
few shards at a time. This process hands out shards, and gives those of a lost actor to others. Ray
could restart actors itself, but doesn't show which of their shards ends them.
"""

import contextlib
import dataclasses
import logging
import os
import socket
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from m2l_jax.corpus.ledger import Ledger
from m2l_jax.corpus.plan import RunOptions, Shard, ShardSummary
from m2l_jax.corpus.run import Job, Progress, check_not_stopped, work_and_commit
from m2l_jax.interface.errors import InputError, StopRequest, first_line

_logger = logging.getLogger(__name__)

_MOST_DEATHS = 3  # of actors at one shard, or in a row before they were ready
_ACCELERATORS = ('GPU', 'TPU')  # Ray's names
_WAIT_SECONDS = 1.0
_PATIENCE_SECONDS = 10.0  # to connect, to drop shards, and between counts of the nodes


def run_ray(
    job: Job,
    shards: Sequence[Shard],
    ledger: Ledger,
    progress: Progress,
    options: RunOptions,
) -> None:
    """Works on the shards that are not done, on all of a cluster.

    All nodes see the ledger's folder, and the input, under the same name.

    Raises:
      InputError: if there is no such cluster, at the first error that is not one file's, or if a
        shard has ended several processes. Complete shards are kept.
      Interrupted: after SIGTERM or Ctrl-C; the shards under way are dropped.
    """
    missing = ledger.missing(shards)
    stop = StopRequest()
    progress.start(missing)
    if missing:
        with (
            _connected(options.ray) as ray,
            stop.watched('dropping the shards under way, then stopping'),
            contextlib.closing(_Crew(ray, job, ledger, progress, options)) as crew,
        ):
            crew.work_on(missing, stop)
    check_not_stopped(stop, ledger.missing(missing), shards)


@contextlib.contextmanager
def _connected(address: str) -> Iterator[ModuleType]:
    """Yields the module `ray`, connected to a cluster."""
    try:
        import ray
    except ModuleNotFoundError as error:
        raise InputError(
            f"--runner=ray needs Ray (no module {error.name}): pip install 'm2l_jax[ray]'"
        ) from None
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
    try:
        _check_address(address)
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f'--ray_address={address} cannot be reached ({first_line(error)}): begin a cluster '
            'with `ray start --head`, or pass its address'
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Tries to connect; Ray itself would try for more than a minute, and end the process."""
    if '://' in address:
        raise ValueError("this is for Ray's client: run on a node of the cluster")
    host, _, port = address.rpartition(':')
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_PATIENCE_SECONDS).close()


class _Actor:
    """The remote part of an actor."""

    def __init__(self):
        self._stop = threading.Event()

    def open(self, job: Job, folder: str, cpus: int, accelerator: str | None) -> str:
        """Opens the job on the actor's own cores and accelerator; returns the node's id."""
        import ray

        os.environ['NPROC'] = str(cpus)  # XLA's number of threads
        if accelerator is not None:
            import jax

            if jax.default_backend() == 'cpu':
                raise InputError(
                    f'JAX finds no {accelerator} on {socket.gethostname()}: install there '
                    f'{"m2l_jax[tpu]" if accelerator == "TPU" else "m2l_jax[cuda]"!r}'
                )
        self._ledger = Ledger(folder)
        self._worker = job.open()
        return ray.get_runtime_context().get_node_id()

    def work(self, shard: Shard) -> ShardSummary:
        """Completes a shard; returns its summary without the outputs, which the ledger has."""
        arguments = (
            self._worker,
            shard,
            self._ledger,
            lambda seconds, size: None,
            self._stop.is_set,
        )
        return dataclasses.replace(work_and_commit(*arguments), outputs=())

    def stop(self) -> None:
        """Drops the shards under way."""
        self._stop.set()


@dataclasses.dataclass
class _Crew:
    """The actors, and the shards that each works on; arguments as of `run_ray`."""

    ray: ModuleType
    job: Job
    ledger: Ledger
    progress: Progress
    options: RunOptions

    def __post_init__(self):
        resources = [node['Resources'] for node in self._alive_nodes()]
        kinds = [k for k in _ACCELERATORS if any(found.get(k, 0) >= 1 for found in resources)]
        self._accelerator = kinds[0] if kinds and self.options.ray_accelerators else None
        if not self._count_places():
            what = 'cores' if self._accelerator is None else f'cores and a {self._accelerator}'
            raise InputError(
                f'no node of the Ray cluster has {self.options.ray_cpus} {what}: '
                'pass fewer --ray_cpus'
            )
        self._job = self.ray.put(self.job)
        self._nodes: dict[Any, str | None] = {}  # of each actor; None until it is ready
        self._tasks: dict[Any, tuple[Any, Shard | None]] = {}  # their actors; None for `open`
        self._queue: deque[Shard] = deque()
        # Shards of lost actors come last, each alone, which finds the one that ends processes.
        self._suspects: deque[Shard] = deque()
        self._deaths: defaultdict[int, list[str | None]] = defaultdict(list)  # nodes, by shard
        self._failed_openings = 0
        self._recount_time = 0.0

    def work_on(self, missing: Sequence[Shard], stop: StopRequest) -> None:
        """Returns once all shards are done, or a stop is requested."""
        self._queue.extend(missing)
        while self._count_left() and not stop:
            if time.monotonic() >= self._recount_time:
                self._hire()
            self._assign()
            for task in self._wait(list(self._tasks), _WAIT_SECONDS):
                if task in self._tasks:  # else its actor was just lost
                    self._take(task)
            self.progress.show()

    def close(self) -> None:
        """Drops the shards under way, and ends the actors."""
        under_way = [task for task, (_, shard) in self._tasks.items() if shard is not None]
        if under_way:
            tasks = [*under_way, *(actor.stop.remote() for actor in self._nodes)]
            self._wait(tasks, _PATIENCE_SECONDS, number=len(tasks))
        for actor in self._nodes:
            self.ray.kill(actor)

    def _count_left(self) -> int:
        under_way = sum(shard is not None for _, shard in self._tasks.values())
        return len(self._queue) + len(self._suspects) + under_way

    def _wait(self, tasks: list[Any], seconds: float, number: int = 1) -> list[Any]:
        if not tasks:
            time.sleep(seconds)
            return []
        return self.ray.wait(tasks, num_returns=number, timeout=seconds)[0]

    def _alive_nodes(self) -> list[dict[str, Any]]:
        return [node for node in self.ray.nodes() if node['Alive']]

    def _count_places(self) -> int:
        """Counts the actors for which the nodes have room."""
        needed = {'CPU': self.options.ray_cpus}
        if self._accelerator is not None:
            needed[self._accelerator] = 1
        return sum(
            min(int(node['Resources'].get(name, 0) // amount) for name, amount in needed.items())
            for node in self._alive_nodes()
        )

    def _hire(self) -> None:
        """Makes actors; the cluster starts those for which there is room."""
        self._recount_time = time.monotonic() + _PATIENCE_SECONDS
        places = min(self._count_places(), self._count_left())
        if not places:
            _logger.warning('no node of the Ray cluster is left: waiting for one')
        remote = self.ray.remote(
            num_cpus=self.options.ray_cpus,
            num_gpus=int(self._accelerator == 'GPU'),
            resources={'TPU': 1} if self._accelerator == 'TPU' else None,
            max_restarts=0,
            max_concurrency=self.options.threads + 1,  # and `stop`
        )(_Actor)
        arguments = (self._job, str(self.ledger.folder), self.options.ray_cpus, self._accelerator)
        while len(self._nodes) < places:
            actor = remote.remote()
            self._nodes[actor] = None
            self._tasks[actor.open.remote(*arguments)] = (actor, None)

    def _assign(self) -> None:
        """Gives shards to the actors that are ready, evenly."""
        busy = Counter(actor for actor, _ in self._tasks.values())
        ready = [actor for actor, node in self._nodes.items() if node is not None]
        for shards, most in ((self._queue, self.options.threads), (self._suspects, 1)):
            for count in range(most):
                for actor in ready:
                    if busy[actor] == count and shards:
                        shard = shards.popleft()
                        self._tasks[actor.work.remote(shard)] = (actor, shard)
                        busy[actor] += 1

    def _take(self, task: Any) -> None:
        """Notes the end of a task."""
        errors = self.ray.exceptions
        actor, shard = self._tasks[task]
        try:
            result = self.ray.get(task)
        except errors.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, InputError) else error) from None
        except errors.RayError as error:
            self._lose(actor, error)
            return
        del self._tasks[task]
        if shard is None:
            self._nodes[actor] = result
            self._failed_openings = 0
        else:
            self.progress.after(shard, result)

    def _lose(self, actor: Any, error: Exception) -> None:
        """Goes on without an actor, and queues its shards again.

        Raises:
          InputError: if several actors in a row ended before they were ready, or several at one
            shard whose nodes are still there.
        """
        _logger.warning('an actor was lost: %s', first_line(error))
        node = self._nodes.pop(actor)
        self._recount_time = 0.0
        self.ray.kill(actor)  # perhaps it is only unreachable
        lost = {task: shard for task, (owner, shard) in self._tasks.items() if owner == actor}
        for task, shard in lost.items():
            del self._tasks[task]
            if shard is None:
                self._failed_openings += 1
            elif not self.ledger.missing([shard]):
                self.progress.after(shard, *self.ledger.summaries([shard]))
            else:
                self._suspects.append(shard)
                self._deaths[shard.number].append(node)
                self._check_deaths(shard)
        if self._failed_openings >= _MOST_DEATHS:
            raise InputError(f'actors end before they are ready: {first_line(error)}')

    def _check_deaths(self, shard: Shard) -> None:
        alive = {node['NodeID'] for node in self._alive_nodes()}
        if sum(node in alive for node in self._deaths[shard.number]) >= _MOST_DEATHS:
            raise InputError(
                f'shard {shard.number} has ended {_MOST_DEATHS} processes, perhaps for lack of '
                f'memory; it begins with {shard.items[0].path}: look into the logs of Ray, or '
                'leave out the file that does it'
            )

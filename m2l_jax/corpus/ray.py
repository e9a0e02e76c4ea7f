"""The run of a job on a Ray cluster, of which any node may be lost at any time.

Each accelerator, or else each set of cores, has an actor that opens the job once and works on a few
shards at a time. This process hands out shards, and gives those of a lost actor to others.
"""

import contextlib
import dataclasses
import logging
import os
import socket
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from m2l_jax.corpus.ledger import Ledger
from m2l_jax.corpus.plan import Shard, ShardSummary
from m2l_jax.corpus.progress import Progress
from m2l_jax.corpus.run import Job, RayOptions, check_not_stopped, work_and_commit
from m2l_jax.interface.errors import InputError, StopRequest, first_line

_logger = logging.getLogger(__name__)

_MOST_DEATHS = 3  # of actors at one shard, or in a row before they were ready
_ACCELERATORS = ('GPU', 'TPU')  # as Ray names them
_WAIT_SECONDS = 1.0
_PATIENCE_SECONDS = 10.0  # to connect, to drop shards, and between counts of the nodes


def run_ray(
    job: Job,
    shards: Sequence[Shard],
    ledger: Ledger,
    progress: Progress,
    options: RayOptions,
    threads: int = 2,
) -> None:
    """Works on all of a cluster on those of the shards that are not done.

    All nodes see the ledger's folder, and the input, under the same name.

    Args:
      threads: shards that an actor works on at once.

    Raises:
      InputError: if there is no such cluster, at the first error that is not one file's, or if a
        shard has ended several processes. What is complete is kept.
      Interrupted: after SIGTERM or Ctrl-C; the shards under way are dropped.
    """
    missing = ledger.missing(shards)
    stop = StopRequest()
    progress.start(missing)
    if missing:
        with (
            _connected(options.address) as ray,
            stop.watched('dropping the shards under way, then stopping'),
            contextlib.closing(_Crew(ray, job, ledger, progress, options, threads)) as crew,
        ):
            crew.work_on(missing, stop)
    check_not_stopped(stop, ledger.missing(missing), shards)


@contextlib.contextmanager
def _connected(address: str) -> Iterator[ModuleType]:
    """Ray, connected to a cluster."""
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
    """An actor's process."""

    def __init__(self):
        self._stop = threading.Event()

    def open(self, job: Job, folder: str, cpus: int, accelerator: str | None) -> str:
        """Loads the job, on no more than its own cores and accelerator; returns the node's id."""
        import ray

        # What XLA takes for the number of cores.
        os.environ['NPROC'] = str(cpus)
        if accelerator is not None:
            _check_accelerator(accelerator)
        self._ledger = Ledger(folder)
        self._worker = job.open()
        return ray.get_runtime_context().get_node_id()

    def work(self, shard: Shard) -> ShardSummary:
        """Completes a shard; its outputs are in the ledger, and are not returned."""
        arguments = (self._worker, shard, self._ledger, lambda seconds: None, self._stop.is_set)
        summary = work_and_commit(*arguments)
        return dataclasses.replace(summary, outputs=())

    def stop(self) -> None:
        """Drops the shards under way."""
        self._stop.set()


def _check_accelerator(accelerator: str) -> None:
    """Refuses to compute on the CPU of a node whose accelerator this process holds."""
    import jax

    if jax.default_backend() == 'cpu':
        raise InputError(
            f'JAX finds no {accelerator} on {socket.gethostname()}: install there '
            f'{"m2l_jax[tpu]" if accelerator == "TPU" else "m2l_jax[cuda]"!r}'
        )


@dataclasses.dataclass(eq=False)
class _Member:
    """An actor as this process knows it; on no node until it is ready."""

    actor: Any
    node: str | None = None
    busy: int = 0


class _Crew:
    """The actors, and the shards that each works on."""

    def __init__(
        self,
        ray: ModuleType,
        job: Job,
        ledger: Ledger,
        progress: Progress,
        options: RayOptions,
        threads: int,
    ):
        self._ray = ray
        self._threads = threads
        self._job = ray.put(job)
        self._ledger = ledger
        self._progress = progress
        self._cpus = options.cpus
        self._accelerator = _find_accelerator(ray) if options.accelerators else None
        if not self._count_places():
            what = 'cores' if self._accelerator is None else f'cores and a {self._accelerator}'
            raise InputError(
                f'no node of the Ray cluster has {options.cpus} {what}: pass fewer --ray_cpus'
            )
        self._members: set[_Member] = set()
        self._tasks: dict[Any, tuple[_Member, Shard | None]] = {}
        self._queue: deque[Shard] = deque()
        # Shards that were under way when an actor was lost are worked on last, each alone, so
        # that the one which ends its process is found.
        self._suspects: deque[Shard] = deque()
        self._deaths: defaultdict[int, list[str | None]] = defaultdict(list)
        self._failed_openings = 0
        self._recount_time = 0.0

    def work_on(self, missing: Sequence[Shard], stop: StopRequest) -> None:
        """Returns once all shards are done, or it is asked to stop."""
        self._queue.extend(missing)
        while self._count_left() and not stop:
            if time.monotonic() >= self._recount_time:
                self._hire()
            self._assign()
            for task in self._wait(list(self._tasks), _WAIT_SECONDS):
                if task in self._tasks:  # not one of an actor that was just lost
                    self._take(task)
            self._progress.show()

    def close(self) -> None:
        """Drops the shards under way, and ends the actors."""
        under_way = [task for task, (_, shard) in self._tasks.items() if shard is not None]
        if under_way:
            stops = [member.actor.stop.remote() for member in self._members]
            self._wait([*stops, *under_way], _PATIENCE_SECONDS, number=len(stops) + len(under_way))
        for member in self._members:
            self._ray.kill(member.actor)

    def _count_left(self) -> int:
        under_way = [shard for _, shard in self._tasks.values() if shard is not None]
        return len(self._queue) + len(self._suspects) + len(under_way)

    def _wait(self, tasks: list[Any], seconds: float, number: int = 1) -> list[Any]:
        if not tasks:
            time.sleep(seconds)
            return []
        return self._ray.wait(tasks, num_returns=number, timeout=seconds)[0]

    def _hire(self) -> None:
        """Makes actors; the cluster starts as many as it has free places."""
        self._recount_time = time.monotonic() + _PATIENCE_SECONDS
        places = min(self._count_places(), self._count_left())
        if not places:
            _logger.warning('no node of the Ray cluster is left: waiting for one')
        resources = {self._accelerator: 1} if self._accelerator == 'TPU' else None
        remote = self._ray.remote(
            num_cpus=self._cpus,
            num_gpus=int(self._accelerator == 'GPU'),
            resources=resources,
            max_restarts=0,
            max_concurrency=self._threads + 1,  # and `stop`
        )(_Actor)
        while len(self._members) < places:
            member = _Member(remote.remote())
            arguments = (self._job, str(self._ledger.folder), self._cpus, self._accelerator)
            self._members.add(member)
            self._tasks[member.actor.open.remote(*arguments)] = (member, None)

    def _count_places(self) -> int:
        """Actors for which the nodes that are alive have room."""
        needed = {'CPU': self._cpus} | ({self._accelerator: 1} if self._accelerator else {})
        return sum(
            min(int(resources.get(name, 0) // amount) for name, amount in needed.items())
            for resources in _live_resources(self._ray)
        )

    def _assign(self) -> None:
        """Gives shards to actors that are ready, evenly."""
        ready = [member for member in self._members if member.node is not None]
        for busy in range(self._threads):
            for member in ready:
                if member.busy == busy and self._queue:
                    self._give(member, self._queue.popleft())
        for member in ready:
            if not member.busy and self._suspects:
                self._give(member, self._suspects.popleft())

    def _give(self, member: _Member, shard: Shard) -> None:
        member.busy += 1
        self._tasks[member.actor.work.remote(shard)] = (member, shard)

    def _take(self, task: Any) -> None:
        """Notes the end of a task."""
        errors = self._ray.exceptions
        member, shard = self._tasks[task]
        try:
            result = self._ray.get(task)
        except errors.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, InputError) else error) from None
        except errors.RayError as error:
            self._lose(member, error)
            return
        del self._tasks[task]
        if shard is None:
            member.node = result
            self._failed_openings = 0
        else:
            member.busy -= 1
            self._progress.after(shard, result)

    def _lose(self, member: _Member, error: Exception) -> None:
        """Goes on without an actor, and queues its shards again."""
        _logger.warning('an actor was lost: %s', first_line(error))
        self._members.remove(member)
        self._recount_time = 0.0
        self._ray.kill(member.actor)  # it might only be out of reach
        for task, (owner, shard) in list(self._tasks.items()):
            if owner is not member:
                continue
            del self._tasks[task]
            if shard is None:
                self._failed_openings += 1
            elif self._ledger.is_done(shard):
                (summary,) = self._ledger.summaries([shard])
                self._progress.after(shard, summary)
            else:
                self._suspects.append(shard)
                self._blame(shard, member)
        if self._failed_openings >= _MOST_DEATHS:
            raise InputError(f'actors end before they are ready: {first_line(error)}')

    def _blame(self, shard: Shard, member: _Member) -> None:
        """Ends the run at a shard that has ended several processes, if not their whole nodes."""
        deaths = self._deaths[shard.number]
        deaths.append(member.node)
        alive = {node['NodeID'] for node in self._ray.nodes() if node['Alive']}
        if sum(node in alive for node in deaths) >= _MOST_DEATHS:
            raise InputError(
                f'shard {shard.number} has ended {_MOST_DEATHS} processes, perhaps for lack of '
                f'memory; it begins with {shard.items[0].path}: look into the logs of Ray, or '
                'leave out the file that does it'
            )


def _find_accelerator(ray: ModuleType) -> str | None:
    """Returns the kind that the cluster has, if any."""
    nodes = list(_live_resources(ray))
    return next((k for k in _ACCELERATORS if any(node.get(k, 0) >= 1 for node in nodes)), None)


def _live_resources(ray: ModuleType) -> Iterator[dict[str, float]]:
    return (node['Resources'] for node in ray.nodes() if node['Alive'])

"""A job without a model: writes, for each item, its source and a few numbers; and how it is run.

    python -m tests.corpus.fake_job OUTPUT ITEMS SECONDS [SHARE [RAY [ENDLESS]]]

An item whose source holds one of these words has trouble: `bad` fails, `full` finds no space left,
`bug` raises another error, `die` kills the process, `die-once` the first time only.
"""

import dataclasses
import errno
import functools
import hashlib
import math
import os
import pathlib
import signal
import sys
import time

from m2l_jax.corpus.ledger import Ledger
from m2l_jax.corpus.plan import (
    Item,
    Output,
    RunOptions,
    ShardSummary,
    parse_share,
    plan_shards,
    share_of,
)
from m2l_jax.corpus.ray import run_ray
from m2l_jax.corpus.run import Progress, run_local
from m2l_jax.interface import command
from m2l_jax.interface.errors import InputError, Interrupted
from m2l_jax.interface.paths import replaced_file

SETTINGS = {'model': 'fake'}


@dataclasses.dataclass(frozen=True)
class FakeJob:
    """Each item takes so many seconds; those of the shards from `endless` on, until dropped."""

    folder: str
    seconds: float = 0.0
    endless: float = math.inf

    def open(self) -> 'FakeWorker':
        return FakeWorker(pathlib.Path(self.folder), self.seconds, self.endless)

    def complete(self, summaries):
        pass


@dataclasses.dataclass(frozen=True)
class ThreadCountingJob(FakeJob):
    """Notes beside the output folder how many threads XLA computes with."""

    def open(self):
        os.environ.pop('XLA_FLAGS', None)  # the tests' own, of several devices
        import jax.numpy as jnp

        x = jnp.ones((256, 256))
        (x @ x).block_until_ready()
        names = [
            pathlib.Path(f'/proc/self/task/{task}/comm').read_text()
            for task in os.listdir('/proc/self/task')
        ]
        count = sum('XLAEigen' in name for name in names)
        pathlib.Path(f'{self.folder}.threads.{os.getpid()}').write_text(str(count))
        return super().open()


class FakeWorker:
    def __init__(self, folder, seconds, endless):
        self._folder = folder
        self._seconds = seconds
        self._endless = endless

    def work(self, shard, tell):
        with open(f'{self._folder}.log', 'a') as log:
            log.write(f'{shard.number}\n')
        outputs, failures = [], []
        for item in shard.items:
            try:
                linger = functools.partial(tell, 0.0, 0) if shard.number >= self._endless else None
                outputs.append(self._write(item, linger))
            except InputError as error:
                if 'no audio' not in str(error):
                    raise
                failures.append((item.source, str(error)))
            tell(1.0, item.bytes)
        count = len(outputs)
        return ShardSummary(
            shard.number, count, float(count), 10 * count, tuple(outputs), tuple(failures)
        )

    def _write(self, item, linger):
        if 'bad' in item.source:
            raise InputError(f'{item.path} is no audio')
        if 'bug' in item.source:
            raise RuntimeError(item.source)
        content = f'{item.source}: {list(range(item.bytes))}'.encode()
        name = f'{item.source}.txt'
        with replaced_file(self._folder / name) as partial:
            partial.write_bytes(content[: len(content) // 2])
            time.sleep(self._seconds)
            while linger:
                linger()  # ends with an error once the shard is to be dropped
                time.sleep(0.01)
            if 'full' in item.source:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if 'die' in item.source:
                self._die(item)
            partial.write_bytes(content)
        return Output(name, len(content), hashlib.sha256(content).hexdigest(), 1)

    def _die(self, item):
        note = self._folder.with_name(f'{self._folder.name}.{pathlib.Path(item.source).name}')
        if 'die-once' not in item.source or not note.exists():
            note.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def plan(count, trouble=()):
    """So many items, with names that hold trouble after those, and shards of three."""
    sources = [f'album {number % 5}/{number}' for number in range(count)]
    items = [Item(name, f'/in/{name}', 20) for name in (*sources, *trouble)]
    return items, plan_shards(items, 1.0, 3)


def results(folder):
    """All that a run has left, but for who has written what."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in pathlib.Path(folder).rglob('*')
        if path.is_file()
    }


def main(folder, count, seconds, share='0/1', address='', endless='inf'):
    items, shards = plan(int(count))
    ledger = Ledger(folder)
    ledger.claim(SETTINGS, items)
    mine = share_of(shards, *parse_share(share))
    print('begins', flush=True)
    job = FakeJob(folder, float(seconds), float(endless))
    if address:
        run_ray(job, mine, ledger, Progress(mine), RunOptions(ray=address, ray_cpus=1))
    else:
        run_local(job, mine, ledger, Progress(mine))
    print(ledger.finish(shards), flush=True)


if __name__ == '__main__':
    try:
        main(*sys.argv[1:])
    except (InputError, Interrupted) as error:
        sys.exit(command.report_error(error))

"""One of several processes that train together; run by the tests, with fake devices.

python -m tests.distributed.worker ADDRESS PROCESSES PROCESS FOLDER OUTPUT
"""

import hashlib
import json
import os
import pathlib
import signal
import sys

import jax

from m2l_jax.interface.errors import Interrupted
from m2l_jax.interface.settings import build
from m2l_jax.training import mesh as meshes
from m2l_jax.training.config import TrainingConfig
from m2l_jax.training.feed import open_feed
from m2l_jax.training.loop import train_and_evaluate
from tests.distributed.job import make_job_config
from tests.training.runs import watched


def hash_rows(config, steps, devices=None):
    """The rows of the global batches that this process's devices get, `{'step row': hash}`."""
    settings = build(TrainingConfig, config)
    mesh = meshes.make_mesh(devices)
    feed = open_feed(settings, mesh)
    fetch = jax.jit(
        jax.shard_map(
            feed.fetch,
            mesh=mesh,
            in_specs=(feed.specs, meshes.REPLICATED),
            out_specs=meshes.ROWS,
        )
    )
    rows = {}
    for step, data in zip(steps, feed.batches(steps), strict=True):
        for shard in fetch(data, step).addressable_shards:
            for row, values in enumerate(jax.device_get(shard.data), shard.index[0].start or 0):
                rows[f'{step} {row}'] = hashlib.sha256(values.tobytes()).hexdigest()
    return rows


def train_until_signalled(config, workdir):
    """Trains; process 1 alone is asked to stop, after step 2."""

    def send(step):
        if step == 2 and jax.process_index() == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        with watched(send):
            train_and_evaluate(config, workdir)
    except Interrupted as error:
        return str(error)
    return 'finished'


def main():
    address, processes, process, folder, output = sys.argv[1:]
    jax.distributed.initialize(address, int(processes), int(process))
    output = pathlib.Path(output)
    result = {
        'devices': jax.device_count(),
        'hashes': {
            name: hash_rows(make_job_config(folder, name == 'resident'), range(3))
            for name in ('host', 'resident')
        },
        'training': train_until_signalled(make_job_config(folder), output / 'run'),
    }
    (output / f'{process}.json').write_text(json.dumps(result))


if __name__ == '__main__':
    main()

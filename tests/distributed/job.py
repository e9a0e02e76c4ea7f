"""Training in several processes, each with two fake devices."""

import json
import os
import pathlib
import socket
import subprocess
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.small_training import make_config
from tests.waiting import HANG_SECONDS
from tests.xla_flags import fake_devices

ROOT = pathlib.Path(__file__).parents[2]
FIELDS = {'steps': 10, 'log_every': 1, 'checkpoint_every': 5}  # of config.train
JOIN = f'--join_timeout={HANG_SECONDS}'
# Processes that meet the same error wait for each other, but not for long.
PATIENT = f"""\
import runpy
from m2l_jax.training import processes
processes._PARTING_SECONDS = {HANG_SECONDS}
runpy.run_module('{{module}}', run_name='__main__', alter_sys=True)
"""


def free_address():
    with socket.socket() as probe:
        probe.bind(('localhost', 0))
        return f'localhost:{probe.getsockname()[1]}'


def make_job_config(path, resident=False, **fields):
    """The config that `start` trains with, for training in this process."""
    config = make_config(path, resident)
    with config.unlocked():
        config.train.update(FIELDS, **fields)
    return config


def start(folder, workdir, *flags, devices=2, module='m2l_jax.train'):
    """The training command in a process of its own, or a module that stands in for it."""
    fields = [f'--config.train.{name}={value}' for name, value in FIELDS.items()]
    return subprocess.Popen(
        [
            *(sys.executable, '-c', PATIENT.format(module=module), f'--workdir={workdir}'),
            *(f'--config=tests/small_training.py:{folder}', *fields, *flags),
        ],
        cwd=ROOT,
        env={**os.environ, 'XLA_FLAGS': fake_devices(devices)},
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(folder, workdir, *flags, victim=None):
    """The command twice, as one job; a process that is a victim is killed as `victim` has it."""
    places = [f'--coordinator={free_address()}', '--num_processes=2', JOIN]
    modules = ['tests.distributed.victim' if i == victim else 'm2l_jax.train' for i in range(2)]
    return [
        start(folder, workdir, *places, f'--process_id={i}', *flags, module=module)
        for i, module in enumerate(modules)
    ]


def run_two_workers(folder, output):
    """Hashes of the batches of two processes of two devices, and how their training ends."""
    address = free_address()
    workers = [
        subprocess.Popen(
            [
                *(sys.executable, '-m', 'tests.distributed.worker'),
                *(address, '2', str(i), str(folder), str(output)),
            ],
            cwd=ROOT,
            env={
                **os.environ,
                'XLA_FLAGS': fake_devices(2),
                'JAX_CPU_COLLECTIVES_IMPLEMENTATION': 'gloo',
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    results = [finish(worker) for worker in workers]
    assert [code for code, _ in results] == [0, 0], results
    return [json.loads((output / f'{i}.json').read_text()) for i in range(2)]


def finish(process):
    """Exit code, and what was written to the terminal."""
    errors = process.communicate(timeout=HANG_SECONDS)[1]
    return process.returncode, errors


def read_losses(workdir):
    events = EventAccumulator(str(workdir))
    events.Reload()
    return {event.step: event.value for event in events.Scalars('loss')}

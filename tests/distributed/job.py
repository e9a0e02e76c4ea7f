"""The training command in several processes, each with two fake devices."""

import os
import pathlib
import socket
import subprocess
import sys
import time

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.small_training import make_config

ROOT = pathlib.Path(__file__).parents[2]
FIELDS = {'steps': 20, 'log_every': 1, 'checkpoint_every': 5}  # of config.train


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


def start(folder, workdir, *flags, devices=2):
    """The training command in a process of its own."""
    fields = [f'--config.train.{name}={value}' for name, value in FIELDS.items()]
    return subprocess.Popen(
        [
            *(sys.executable, '-m', 'm2l_jax.train', f'--workdir={workdir}'),
            *(f'--config=tests/small_training.py:{folder}', *fields, *flags),
        ],
        cwd=ROOT,
        env={**os.environ, 'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}'},
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(folder, workdir, *flags):
    """The command twice, as one job."""
    address = free_address()
    places = [f'--coordinator={address}', '--num_processes=2']
    return [start(folder, workdir, *places, f'--process_id={i}', *flags) for i in range(2)]


def finish(process, timeout=300):
    """Exit code, and what was written to the terminal."""
    errors = process.communicate(timeout=timeout)[1]
    return process.returncode, errors


def wait_for(path, process, timeout=300):
    """Until a path exists."""
    end = time.monotonic() + timeout
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, f'{path} does not appear'
        time.sleep(0.05)


def read_losses(workdir):
    events = EventAccumulator(str(workdir))
    events.Reload()
    return {event.step: event.value for event in events.Scalars('loss')}

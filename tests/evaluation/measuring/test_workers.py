import operator
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from m2l_jax.evaluation.measuring.workers import Workers
from m2l_jax.evaluation.metrics import measure_named
from m2l_jax.interface.errors import InputError
from tests.conftest import make_music
from tests.waiting import wait_until


def test_figures_are_those_of_this_process_in_order():
    pairs = [(make_music(0.2, seed=seed), make_music(0.2, seed=seed + 9)) for seed in range(6)]
    names = ['si_sdr', 'mel', 'loudness']
    figures = []
    for processes in (0, 2):
        with Workers(processes) as workers:
            futures = [workers.submit(measure_named, *pair, 44_100, names) for pair in pairs]
            figures.append([future.result() for future in futures])
    for one, other in zip(*figures, strict=True):  # sums on more threads may round otherwise
        assert one == pytest.approx(other, rel=1e-9)
    assert len({row['mel'] for row in figures[0]}) == 6


def test_processes_import_no_jax_and_share_cores():
    code = '__import__("sys").modules.keys(), dict(__import__("os").environ)'
    with Workers(1) as workers:
        workers.submit(measure_named, *[np.ones((1, 4096))] * 2, 44_100, ['mel'])
        pid = workers.submit(os.getpid).result()
        modules, environment = workers.submit(eval, f'list(({code})[0]), ({code})[1]').result()
    assert 'm2l_jax.evaluation.metrics' in modules
    assert not {'jax', 'tensorflow', 'torch', 'matplotlib'} & set(modules)
    assert environment['NUMBA_NUM_THREADS'] == '1'
    assert pid != os.getpid()
    assert not is_alive(pid)


def test_calls_wait_for_room():
    with Workers(1) as workers:
        begin = time.monotonic()
        futures = [workers.submit(time.sleep, 0.2) for _ in range(4)]
        assert time.monotonic() - begin >= 0.4  # two calls were done
        for future in futures:
            future.result()


def test_errors_are_one_line_and_end_all():
    with Workers(1) as workers, pytest.raises(InputError) as error:
        workers.submit(operator.truediv, 1, 0).result()
    assert str(error.value) == (
        'truediv failed (ZeroDivisionError: division by zero): --processes=0 shows where'
    )
    with Workers(1) as workers:
        shapes = np.ones((1, 4096)), np.ones((1, 4095))
        future = workers.submit(measure_named, *shapes, 44_100, ['snr'])
        with pytest.raises(InputError, match='cannot be compared'):
            future.result()
        with pytest.raises(InputError, match='cannot be compared'):
            workers.submit(os.getpid)
    with Workers(0) as workers, pytest.raises(ZeroDivisionError):
        workers.submit(operator.truediv, 1, 0)


def test_a_process_that_is_killed_is_named():
    with Workers(1) as workers:
        pid = workers.submit(os.getpid).result()
        future = workers.submit(time.sleep, 1000)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(InputError) as error:
            future.result()
    assert str(error.value) == (
        'a process that computes figures was killed by signal 9: if memory ran out, use fewer '
        '--processes, or 0'
    )


def test_processes_end_with_work_half_done():
    pids = []

    def interrupted():
        with Workers(2) as workers:
            pids.extend(workers.submit(os.getpid).result() for _ in range(4))
            workers.submit(time.sleep, 1000)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not any(map(is_alive, pids))


def test_no_process_outlives_the_one_that_is_killed():
    code = """
import os, time
from m2l_jax.evaluation.measuring.workers import Workers
with Workers(1) as workers:
    print(workers.submit(os.getpid).result(), flush=True)
    time.sleep(1000)
"""
    with subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE) as process:
        pid = int(process.stdout.readline())
        assert is_alive(pid)
        process.kill()
    wait_until(lambda: not is_alive(pid))


def is_alive(pid):
    try:
        with open(f'/proc/{pid}/stat') as file:
            return file.read().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False

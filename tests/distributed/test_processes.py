import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from m2l_jax.training.loop import train_and_evaluate
from tests.distributed.job import FIELDS, ROOT, free_address, make_job_config
from tests.distributed.worker import hash_rows


@pytest.fixture
def two_processes(music_folder, tmp_path):
    """What each of two processes with two devices saw, and the folder they trained in."""
    address = free_address()
    environment = {
        **os.environ,
        'XLA_FLAGS': '--xla_force_host_platform_device_count=2',
        'JAX_CPU_COLLECTIVES_IMPLEMENTATION': 'gloo',
    }
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, '-m', 'tests.distributed.worker'),
                *(address, '2', str(number), str(music_folder), str(tmp_path)),
            ],
            cwd=ROOT,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    errors = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], '\n'.join(errors)
    return [json.loads((tmp_path / f'{number}.json').read_text()) for number in range(2)]


def test_batches_and_stops_are_the_same_however_devices_are_spread(
    two_processes, music_folder, tmp_path
):
    assert [result['devices'] for result in two_processes] == [4, 4]
    for name in ('host', 'resident'):
        config = make_job_config(music_folder, name == 'resident')
        one = hash_rows(config, range(3), jax.devices()[:1])
        assert len(set(one.values())) == 24
        assert hash_rows(config, range(3)) == one
        first, second = (result['hashes'][name] for result in two_processes)
        assert len(first) == len(second) == 12
        assert first | second == one

    # Only one was asked to stop; both did, at the same step, and one process can go on.
    stopped = {result['training'] for result in two_processes}
    assert len(stopped) == 1
    assert stopped.pop().startswith('stopped and saved at step ')
    resumed = train_and_evaluate(make_job_config(music_folder), tmp_path / 'run')
    whole = train_and_evaluate(make_job_config(music_folder), tmp_path / 'whole')
    assert int(resumed.step) == FIELDS['steps']
    for ours, theirs in zip(
        jax.tree.leaves(resumed.params), jax.tree.leaves(whole.params), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)

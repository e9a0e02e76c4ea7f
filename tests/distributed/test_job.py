"""The training command in several processes: the same numbers, and what happens where one dies."""

import signal

import jax
import numpy as np
import pytest

from m2l_jax.training.loop import train_and_evaluate
from tests.distributed.job import (
    finish,
    make_job_config,
    read_losses,
    run_two_workers,
    start,
    start_two,
)
from tests.distributed.worker import hash_rows


@pytest.fixture(scope='module')
def whole(music, tmp_path_factory):
    """An uninterrupted run in this process, on four devices: its losses and final state."""
    workdir = tmp_path_factory.mktemp('whole')
    state = train_and_evaluate(make_job_config(music), workdir)
    return read_losses(workdir), state


def assert_same_losses(ours, theirs, tolerance=1e-5):
    assert list(ours) == list(theirs)
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=tolerance)


def assert_same_state(ours, theirs):
    """Gradients summed in another order differ by 1e-6; RAdam divides small ones by their size."""
    assert int(ours.step) == int(theirs.step) == 10
    for name in ('params', 'ema_params'):
        pairs = zip(
            jax.tree.leaves(getattr(ours, name)),
            jax.tree.leaves(getattr(theirs, name)),
            strict=True,
        )
        for one, other in pairs:
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5, err_msg=name)


def bytes_on_one_device(tree):
    device = jax.devices()[0]
    shards = [shard for leaf in jax.tree.leaves(tree) for shard in leaf.addressable_shards]
    return sum(shard.data.nbytes for shard in shards if shard.device == device)


def test_a_shared_out_optimizer_gives_the_same_in_a_quarter_of_the_memory(music, whole, tmp_path):
    state = train_and_evaluate(make_job_config(music, shard_optimizer=True), tmp_path)
    assert_same_losses(read_losses(tmp_path), whole[0], 1e-6)
    assert_same_state(state, whole[1])
    assert bytes_on_one_device(whole[1].ema_params) == bytes_on_one_device(whole[1].params)
    assert bytes_on_one_device(state.params) == bytes_on_one_device(whole[1].params)
    for name in ('ema_params', 'opt_state'):
        ours, theirs = (bytes_on_one_device(getattr(each, name)) for each in (state, whole[1]))
        assert 0.25 <= ours / theirs < 0.27, name  # a few small leaves stay whole


def test_two_processes_train_as_one_does(music, whole, tmp_path):
    processes = start_two(music, tmp_path / 'two', '--config.train.shard_optimizer')
    results = [finish(process) for process in processes]
    assert [code for code, _ in results] == [0, 0], results
    assert '2 processes, 4 devices' in results[0][1]
    assert_same_losses(read_losses(tmp_path / 'two'), whole[0])
    # Only process 0 writes.
    (events,) = (tmp_path / 'two').glob('events.*')
    assert events.name.endswith(f'.{processes[0].pid}.0')
    # A finished run has nothing left to do but to restore: here on other devices, held whole.
    assert_same_state(train_and_evaluate(make_job_config(music), tmp_path / 'two'), whole[1])


def test_one_device_trains_as_four_do(music, whole, tmp_path):
    code, errors = finish(start(music, tmp_path / 'one', devices=1))
    assert code == 0, errors
    assert_same_losses(read_losses(tmp_path / 'one'), whole[0])
    assert_same_state(train_and_evaluate(make_job_config(music), tmp_path / 'one'), whole[1])


def test_batches_and_stops_are_the_same_however_devices_are_spread(music, whole, tmp_path):
    two_processes = run_two_workers(music, tmp_path)
    assert [result['devices'] for result in two_processes] == [4, 4]
    for name in ('host', 'resident'):
        config = make_job_config(music, name == 'resident')
        one = hash_rows(config, range(3), jax.devices()[:1])
        assert len(set(one.values())) == 24
        assert hash_rows(config, range(3)) == one
        last = {place: row for place, row in one.items() if place.startswith('2 ')}
        assert hash_rows(config, range(2, 3)) == last  # as where training goes on
        first, second = (result['hashes'][name] for result in two_processes)
        assert len(first) == len(second) == 12
        assert first | second == one

    # Only one was asked to stop; both did, at the same step, and one process can go on.
    stopped = {result['training'] for result in two_processes}
    assert len(stopped) == 1
    assert stopped.pop().startswith('stopped and saved at step ')
    resumed = train_and_evaluate(make_job_config(music), tmp_path / 'run')
    assert_same_state(resumed, whole[1])


@pytest.mark.parametrize('victim', [0, 1])
def test_where_a_process_is_killed_the_other_ends_and_the_job_goes_on(
    music, whole, tmp_path, victim
):
    processes = start_two(music, tmp_path, victim=victim)
    code, errors = finish(processes[1 - victim])
    assert code == 75, errors
    lines = [line for line in errors.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1
    assert lines[0].startswith('error: another process of this job was lost (')
    assert lines[0].endswith('and it goes on from what is saved')
    assert 'Traceback' not in errors
    assert finish(processes[victim])[0] == -signal.SIGKILL

    # It goes on where the other devices are this process's, with moments shared out.
    state = train_and_evaluate(make_job_config(music, shard_optimizer=victim == 1), tmp_path)
    assert_same_state(state, whole[1])

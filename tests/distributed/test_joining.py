"""Errors that keep processes from training together, each in one line."""

import pytest

from tests.distributed.job import JOIN, finish, free_address, start, start_two
from tests.waiting import wait_until


def error_line(errors):
    assert 'Traceback' not in errors
    (line,) = (line for line in errors.splitlines() if line.startswith('error: '))
    return line


def test_processes_that_do_not_find_each_other_say_so(music_folder, tmp_path):
    """Process 0 alone, and process 1 without it."""
    processes = [
        start(
            *(music_folder, tmp_path, f'--coordinator={address}', '--num_processes=2'),
            *(f'--process_id={number}', '--join_timeout=3'),
        )
        for number, address in enumerate((free_address(), free_address()))
    ]
    (first, first_errors), (second, second_errors) = map(finish, processes)
    assert (first, second) == (1, 1)
    assert 'not all 2 processes came together at localhost:' in error_line(first_errors)
    assert 'process 1 of 2 could not reach process 0 at localhost:' in error_line(second_errors)
    assert 'within 3 s (Connection refused)' in error_line(second_errors)


@pytest.mark.parametrize(
    ('numbers', 'message'),
    [
        ((0, 0), 'another process of this host is process 0 at port '),
        ((0, 1, 1), 'could not join the others (the lines above say why): '),
    ],
)
def test_a_process_with_anothers_number_says_so(music_folder, tmp_path, numbers, message):
    places = f'--coordinator={free_address()}', f'--num_processes={len(numbers)}', JOIN
    processes = [
        start(music_folder, tmp_path, *places, f'--process_id={number}') for number in numbers
    ]
    try:
        wait_until(lambda: any(process.poll() is not None for process in processes))
        ended = next(process for process in processes if process.poll() is not None)
        code, errors = finish(ended)
        assert code == 1
        assert message in error_line(errors)
        assert 'give each its own --process_id' in error_line(errors)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_processes_with_other_configs_say_so(music_folder, tmp_path):
    address = free_address()
    places = (music_folder, tmp_path, f'--coordinator={address}', '--num_processes=2', JOIN)
    processes = [
        start(*places, '--process_id=0'),
        start(*places, '--process_id=1', '--config.seed=3', '--config.data.batch_size=16'),
    ]
    message = (
        'process 1 was started with another config than process 0 '
        '(config.seed: 0 -> 3; config.data.batch_size: 8 -> 16)'
    )
    for code, errors in map(finish, processes):
        assert code == 1
        assert message in error_line(errors)
    assert not list(tmp_path.glob('checkpoints'))


def test_a_batch_that_the_devices_of_all_processes_cannot_share_is_refused(music_folder, tmp_path):
    for code, errors in map(
        finish, start_two(music_folder, tmp_path, '--config.data.batch_size=6')
    ):
        assert code == 1
        assert 'batch_size=6 is not divisible by 4 devices: use a multiple' in error_line(errors)

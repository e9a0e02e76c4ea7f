import json
import os
import pathlib
import random
import signal
import subprocess
import sys

import pytest

from m2l_jax.corpus.ledger import Ledger
from m2l_jax.corpus.plan import RunOptions
from m2l_jax.corpus.run import Progress, run_job, run_local
from m2l_jax.interface.errors import InputError, Interrupted
from tests.corpus.fake_job import SETTINGS, FakeJob, plan, results
from tests.corpus.killing import killed_at
from tests.waiting import HANG_SECONDS, wait_until

ROOT = pathlib.Path(__file__).parents[2]


def run_here(folder, count, trouble=(), seconds=0.0):
    """Runs a job in this process; the ledger, the shards and what was reported."""
    items, shards = plan(count, trouble)
    ledger, progress = Ledger(folder), Progress(shards)
    ledger.claim(SETTINGS, items)
    try:
        run_local(FakeJob(str(folder), seconds), shards, ledger, progress)
    finally:
        report = progress.close()
    return ledger, shards, report


def start(folder, count, seconds=0, share='0/1', before='', endless='inf'):
    """A process that runs a job, after lines of Python."""
    program = (
        f'{before}\nimport runpy; runpy.run_module("tests.corpus.fake_job", run_name="__main__")'
    )
    return subprocess.Popen(
        [sys.executable, '-c', program, str(folder), str(count), str(seconds), share, '', endless],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def whole(tmp_path):
    """What a run in one go leaves of 60 items."""
    ledger, shards, _ = run_here(tmp_path / 'whole', 60)
    assert ledger.finish(shards)
    return results(tmp_path / 'whole')


def test_a_run_does_all_shards_and_a_rerun_none(tmp_path):
    ledger, shards, report = run_here(tmp_path / 'out', 10, ['bad', 'worse/bad'])
    assert (report.shards, report.files, report.failures) == (4, 10, 2)
    assert report.hours == pytest.approx(10 / 3600)
    assert ledger.finish(shards)
    manifest = json.loads((tmp_path / 'out/manifest.json').read_text())
    assert (manifest['files'], manifest['failures'], manifest['latents']) == (10, 2, 100)
    assert (tmp_path / 'out/failures.csv').read_text().splitlines()[1:] == [
        'bad,/in/bad is no audio',
        'worse/bad,/in/worse/bad is no audio',
    ]
    before = results(tmp_path / 'out')
    _, _, report = run_here(tmp_path / 'out', 10, ['bad', 'worse/bad'])
    assert (report.shards, report.shards_before) == (0, 4)
    assert results(tmp_path / 'out') == before


def test_a_rerun_after_nothing_could_be_done_fails_again(tmp_path):
    for _ in range(2):
        _, _, report = run_here(tmp_path / 'out', 0, ['bad', 'worse/bad'])
        with pytest.raises(InputError, match=r'none of the files could be done: out/failures\.csv'):
            report.check_any_done('out')
    folder, (_, shards) = tmp_path / 'other', plan(10, ['bad'])
    folder.mkdir()
    for before in (0, 10):
        options = RunOptions(threads=1)
        report = run_job(FakeJob(str(folder)), shards, SETTINGS, folder, options)
        assert (report.files, report.files_before) == (10 - before, before)
        report.check_any_done('other')


def test_what_was_killed_at_any_moment_ends_as_if_it_had_not_been(tmp_path, whole):
    moments = random.Random(6)
    folder = tmp_path / 'out'
    kills = 0
    while True:
        with start(folder, 60, before=killed_at(moments.randint(1, 150), folder)) as process:
            process.communicate(timeout=HANG_SECONDS)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        kills += 1
    assert kills >= 4
    assert results(folder) == whole


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_what_was_asked_to_stop_says_how_far_it_is_and_goes_on(tmp_path, whole, number):
    folder = tmp_path / 'out'
    with start(folder, 60, endless='4') as process:
        wait_until(lambda: len(list(folder.glob('shards/*/*.json'))) == 4)
        process.send_signal(number)
        _, errors = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 75
    assert errors.splitlines()[-1].startswith('stopped with 4 of 20 shards done: ')
    assert 'run the same command again, and it does the others' in errors.splitlines()[-1]
    assert not list(folder.rglob('*.partial'))
    with start(folder, 60) as process:
        assert process.communicate(timeout=HANG_SECONDS)[0].splitlines()[-1] == 'True'
    assert results(folder) == whole


def test_two_processes_share_one_folder_and_finish_it_once(tmp_path, whole):
    folder = tmp_path / 'out'
    processes = [start(folder, 60, 0.01, f'{index}/2') for index in range(2)]
    answers = [process.communicate(timeout=HANG_SECONDS) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers
    assert 'True' in answers[0][0] + answers[1][0]
    assert results(folder) == whole


def test_a_full_disk_is_one_line_and_what_is_complete_is_kept(tmp_path):
    with pytest.raises(InputError) as caught:
        run_here(tmp_path / 'out', 60, ['full'], seconds=0.005)
    assert str(caught.value) == (
        f'{tmp_path}/out/full.txt cannot be written (No space left on device); what is complete is '
        'kept: put this right, and run the same command again'
    )
    ledger = Ledger(tmp_path / 'out')
    _, shards = plan(60, ['full'])
    missing = ledger.missing(shards)
    assert any('full' in [item.source for item in shard.items] for shard in missing)
    assert not list((tmp_path / 'out').rglob('*.partial'))
    # Nothing that a committed shard lists is missing.
    done = [shard for shard in shards if shard not in missing]
    for summary in ledger.summaries(done):
        for output in summary.outputs:
            assert (tmp_path / 'out' / output.name).stat().st_size == output.bytes


def test_a_file_that_the_system_refuses_to_write_is_one_line(tmp_path, whole):
    """No file may grow beyond so many bytes: half of an output fits, a whole one does not."""

    limit = 'import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))'
    folder = tmp_path / 'out'
    items, _ = plan(60)
    Ledger(folder).claim(SETTINGS, items)
    with start(folder, 60, before=limit) as process:
        _, errors = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 1
    assert len(errors.splitlines()) == 1
    assert 'cannot be written (File too large); what is complete is kept' in errors
    with start(folder, 60) as process:
        assert process.wait(HANG_SECONDS) == 0
    assert results(folder) == whole


def test_an_error_of_the_program_is_not_hidden(tmp_path):
    with pytest.raises(RuntimeError, match=r'^bug$'):
        run_here(tmp_path / 'out', 9, ['bug'])


def test_a_job_that_cannot_be_opened_says_so(tmp_path):
    class Closed:
        def open(self):
            raise InputError('no checkpoint')

    items, shards = plan(3)
    ledger = Ledger(tmp_path / 'out')
    ledger.claim(SETTINGS, items)
    with pytest.raises(InputError, match=r'^no checkpoint$'):
        run_local(Closed(), shards, ledger, Progress(shards))


def test_what_is_dropped_is_not_counted(tmp_path):
    """A signal between two items of a shard ends it there."""

    class Stopping(FakeJob):
        def open(self):
            os.kill(os.getpid(), signal.SIGTERM)
            return super().open()

    items, shards = plan(30)
    ledger, progress = Ledger(tmp_path / 'out'), Progress(shards)
    ledger.claim(SETTINGS, items)
    with pytest.raises(Interrupted, match=r'^stopped with 0 of 10 shards done: run the same'):
        run_local(Stopping(str(tmp_path / 'out')), shards, ledger, progress)
    assert progress.close().shards == 0

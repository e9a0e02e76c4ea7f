import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.waiting import HANG_SECONDS

ROOT = pathlib.Path(__file__).parents[2]
ARGUMENTS = ['--input=/data/my music', '--output=$HOME *', '--retry_failures']

# Notes how it was called; srun goes on to end with the code in CODE.
TOOL = """\
#!/usr/bin/env bash
{python} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' "${{0##*/}}" "$@" >> {play}/calls
case ${{0##*/}} in
  srun) exit "$CODE" ;;
  squeue) echo "${{STATE:-RUNNING}}" ;;
esac
"""
ARRAY = {
    'SLURM_JOB_ID': '123',
    'SLURM_ARRAY_TASK_ID': '3',
    'SLURM_ARRAY_TASK_MIN': '0',
    'SLURM_ARRAY_TASK_MAX': '15',
    'SLURM_ARRAY_TASK_COUNT': '16',
    'SLURM_CPUS_PER_TASK': '8',
}


@pytest.fixture
def play(tmp_path):
    """A folder with tools that only note how they were called."""
    for name in ('srun', 'squeue', 'scontrol', 'ray'):
        tool = tmp_path / name
        tool.write_text(TOOL.format(python=sys.executable, play=tmp_path))
        tool.chmod(0o755)
    return tmp_path


def launch(play, name, *arguments, folder=ROOT, **settings):
    environment = {'PATH': f'{play}:{os.environ["PATH"]}', 'CODE': '0', 'JAX_PLATFORMS': 'cpu'}
    return subprocess.run(
        [ROOT / 'launch' / name, *arguments],
        cwd=folder,
        env={**environment, **settings},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )


def calls(play):
    return [json.loads(line) for line in (play / 'calls').read_text().splitlines()]


@pytest.mark.parametrize(
    ('settings', 'share'),
    [
        ({}, '3/16'),
        (
            {
                'SLURM_ARRAY_TASK_ID': '4',
                'SLURM_ARRAY_TASK_MIN': '1',
                'SLURM_ARRAY_TASK_MAX': '16',
            },
            '3/16',
        ),
        ({'SHARES': '40', 'SLURM_ARRAY_TASK_COUNT': '2'}, '3/40'),
    ],
)
def test_each_task_of_an_array_has_its_share(play, settings, share):
    result = launch(play, 'slurm_array.sbatch', 'm2l_jax.encode', *ARGUMENTS, **ARRAY | settings)
    assert (result.returncode, result.stdout, result.stderr) == (0, '', '')
    command = ['python', '-m', 'm2l_jax.encode', *ARGUMENTS, f'--share={share}']
    assert calls(play)[0] == ['srun', '--cpus-per-task=8', *command]


@pytest.mark.parametrize(
    ('code', 'state', 'restarts', 'requeued'),
    [
        (75, 'RUNNING', '0', True),
        (137, 'RUNNING', '99', True),
        (75, 'RUNNING', '100', False),
        (75, 'CANCELLED', '0', False),
        (1, 'RUNNING', '0', False),
        (0, 'RUNNING', '0', False),
    ],
)
def test_a_task_that_was_stopped_is_queued_again(play, code, state, restarts, requeued):
    settings = {**ARRAY, 'CODE': str(code), 'STATE': state, 'SLURM_RESTART_COUNT': restarts}
    result = launch(play, 'slurm_array.sbatch', 'm2l_jax.encode', *ARGUMENTS, **settings)
    assert result.returncode == code
    assert (['scontrol', 'requeue', '123'] in calls(play)) == requeued


def test_a_task_that_goes_on_does_not_try_again_what_failed(play):
    flags = ['--retry-failures=true', '--retry_failures', '--input=a']
    settings = {**ARRAY, 'SLURM_RESTART_COUNT': '1'}
    launch(play, 'slurm_array.sbatch', 'm2l_jax.encode', *flags, **settings)
    assert calls(play)[0][2:] == ['python', '-m', 'm2l_jax.encode', '--input=a', '--share=3/16']


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'SLURM_ARRAY_TASK_COUNT': '2'}, 'error: with gaps in --array it is not known how many'),
        ({'SLURM_ARRAY_TASK_ID': ''}, 'error: this is no array: submit it with --array=0-15'),
    ],
)
def test_what_is_no_whole_array_is_refused(play, settings, message):
    result = launch(play, 'slurm_array.sbatch', 'm2l_jax.encode', *ARGUMENTS, **ARRAY | settings)
    assert result.returncode == 1
    assert result.stderr.startswith(message)
    assert len(result.stderr.splitlines()) == 1
    assert not (play / 'calls').exists()


def test_elsewhere_than_in_the_repository_it_does_not_start(play):
    result = launch(play, 'slurm_array.sbatch', 'm2l_jax.encode', '--input=a', folder=play, **ARRAY)
    assert result.returncode == 1
    assert "is not the repository's folder: submit from there" in result.stderr


def test_a_job_is_submitted_to_ray(play):
    result = launch(play, 'ray_encode.sh', *ARGUMENTS, folder='/', ADDRESS='http://head:8265')
    assert result.returncode == 0, result.stderr
    (call,) = calls(play)
    place = call.index('--')
    assert call[:place] == [
        'ray',
        'job',
        'submit',
        '--address=http://head:8265',
        '--working-dir=.',
        '--runtime-env-json={"excludes": [".git"]}',
    ]
    assert call[place + 1 :] == ['python', '-m', 'm2l_jax.encode', '--runner=ray', *ARGUMENTS]


@pytest.mark.parametrize(
    ('name', 'arguments', 'message'),
    [
        ('ray_encode.sh', [], 'usage: ADDRESS='),
        ('ray_encode.sh', ['--input=a'], 'error: ADDRESS is not set'),
        ('slurm_array.sbatch', ['m2l_jax.encode'], 'usage: [SHARES=16] sbatch'),
    ],
)
def test_what_is_missing_for_a_corpus_is_named(play, name, arguments, message):
    result = launch(play, name, *arguments)
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
    assert result.stderr.startswith(message)

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from tests.waiting import HANG_SECONDS, wait_until

ROOT = pathlib.Path(__file__).parents[2]
ARGUMENTS = [
    '--config=configs/tpu_v4.py',
    '--config.data.path=/data/my music',
    """--config.data.mix="(('a','/b',1.0),)\"""",
    '--workdir=/runs/$HOME `date` \\ *',
    '',
]
FLAGS = ['--zone=us-central2-b', '--project=ours', '--quiet']

# What is trained: notes its arguments, and ends with the next of the codes in the folder's `plan`.
# At `taken` the TPU is taken away once both hosts train, at `wait` it waits for SIGTERM.
TRAINING = """\
import json, os, pathlib, signal, sys, time
play, host = pathlib.Path(os.environ['PLAY']), os.path.basename(os.environ['HOME'])
with (play / f'{host}.runs').open('a') as runs:
    runs.write(json.dumps(sys.argv[1:]) + '\\n')
print('training on', host, flush=True)
number = len((play / f'{host}.runs').read_text().splitlines()) - 1
code = (play / 'plan').read_text().split()[number]
if code == 'taken':
    (play / f'{host}.taken').touch()
    while not (play / 'host1.taken').exists():
        time.sleep(0.02)
    if host == 'host0':
        (play / 'state').write_text('PREEMPTED')
    time.sleep(3600)
if code == 'wait':
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    (play / f'{host}.waits').touch()
    time.sleep(3600)
sys.exit(int(code))
"""


@pytest.fixture
def play(tmp_path):
    """A folder with a fake gcloud, and the tools that a TPU's hosts have, in `bin`."""
    tools = {
        'gcloud': f'exec {sys.executable} {ROOT}/tests/launch/fake_gcloud.py {tmp_path} "$@"',
        'curl': 'echo true',
        'uv': f"""\
            echo "$PWD: $*" >> {tmp_path}/uv
            if [[ $1 == venv ]]; then
              mkdir -p .venv/bin
              cp {tmp_path}/bin/train .venv/bin/python
            fi""",
        'train': f'exec {sys.executable} {tmp_path}/training.py "$@"',
    }
    (tmp_path / 'training.py').write_text(TRAINING)
    (tmp_path / 'bin').mkdir()
    for name, text in tools.items():
        tool = tmp_path / 'bin' / name
        tool.write_text(f'#!/usr/bin/env bash\n{text}\n')
        tool.chmod(0o755)
    return tmp_path


def launch(play, *arguments, **settings):
    environment = {
        'PATH': f'{play}/bin:{os.environ["PATH"]}',
        'NAME': 'it',
        'ZONE': 'us-central2-b',
        'PROJECT': 'ours',
        'POLL': '0.1',
        'PAUSE': '0',
        **settings,
    }
    return subprocess.run(
        [ROOT / 'launch' / 'tpu_vm.sh', *arguments],
        cwd='/',
        env={name: value for name, value in environment.items() if value},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )


def read_lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_keep_makes_a_tpu_anew_when_it_was_taken_away_and_trains_until_the_end(play):
    (play / 'plan').write_text('taken 75 0')
    result = launch(play, 'keep', *ARGUMENTS, TYPE='v4-16', SPOT='1', SETUP='touch mounted')
    assert result.returncode == 0, result.stdout + result.stderr
    assert 'the training has ended' in result.stdout

    calls = read_lines(play / 'calls')
    assert all(call[:3] == ['compute', 'tpus', 'tpu-vm'] for call in calls)
    assert all(call[-3:] == FLAGS for call in calls)
    changes = [
        call[3:-3] for call in calls if call[3] != 'describe' and 'progress=' not in str(call)
    ]
    made = ['create', 'it', '--accelerator-type=v4-16', '--version=tpu-ubuntu2204-base', '--spot']
    verbs = ['create', 'scp', 'ssh', 'ssh']
    assert [change[0] for change in changes] == [*verbs, 'delete', *verbs]
    assert changes[0] == changes[5] == made
    assert changes[1][2:] == ['it:', '--worker=all']
    assert changes[4] == ['delete', 'it']
    assert all(change[1:3] == ['it', '--worker=all'] for change in changes if change[0] == 'ssh')

    for host in ('host0', 'host1'):
        # First, after it was made anew, and after exit code 75.
        assert read_lines(play / f'{host}.runs') == [['-m', 'm2l_jax.train', *ARGUMENTS]] * 3
        home = play / host
        assert (home / 'm2l_jax.exit').read_text() == '0\n'
        log = (home / 'm2l_jax.log').read_text()
        assert log.count(f'training on {host}\n') == 2
        assert 'exit code 75, restart 1 of 100' in log
        assert (home / 'm2l_jax' / 'configs' / 'tpu_v4.py').exists()
        assert (home / 'mounted').exists()
        assert (
            f'{home}/m2l_jax: pip install --requirement=requirements.txt .[tpu]'
            in (play / 'uv').read_text()
        )


def test_keep_ends_at_an_error(play):
    (play / 'plan').write_text('1')
    result = launch(play, 'keep', *ARGUMENTS)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith('error: the training ended with an error')
    assert [len(read_lines(play / f'host{number}.runs')) for number in range(2)] == [1, 1]
    assert (play / 'state').read_text() == 'READY'


def test_a_training_goes_on_alone_and_is_stopped_once(play):
    (play / 'plan').write_text('wait')
    for verb in (['create'], ['copy'], ['run', *ARGUMENTS]):
        assert launch(play, *verb).returncode == 0
    hosts = [play / 'host0', play / 'host1']
    wait_until(lambda: all((play / f'{host.name}.waits').exists() for host in hosts))
    assert launch(play, 'copy').stdout.count('left as it is: it trains') == 2
    assert launch(play, 'run', *ARGUMENTS).stdout.count('it trains already') == 2

    assert launch(play, 'stop').returncode == 0
    wait_until(lambda: all((host / 'm2l_jax.exit').exists() for host in hosts))
    assert [(host / 'm2l_jax.exit').read_text() for host in hosts] == ['75\n', '75\n']
    assert len(read_lines(play / 'host0.runs')) == 1
    assert launch(play, 'stop').stdout.count('it does not train') == 2


def test_tail_follows_the_log_of_one_host(play):
    launch(play, 'create')
    (play / 'host1' / 'm2l_jax.log').write_text('step 20\n')
    with subprocess.Popen(
        [ROOT / 'launch' / 'tpu_vm.sh', 'tail'],
        env={
            **os.environ,
            'PATH': f'{play}/bin:{os.environ["PATH"]}',
            'NAME': 'it',
            'ZONE': 'z',
            'WORKER': '1',
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout.readline() == 'step 20\n'
        os.killpg(process.pid, signal.SIGTERM)


@pytest.mark.parametrize(
    ('arguments', 'settings', 'message'),
    [
        (['create'], {'NAME': ''}, 'error: NAME is not set: export NAME=my-tpu'),
        (['create'], {'ZONE': ''}, 'error: ZONE is not set: export ZONE=us-central2-b'),
        (['run'], {}, "error: run needs the training's arguments: --config=FILE --workdir=FOLDER"),
        ([], {}, 'Trains on a Cloud TPU slice'),
        (['fly'], {}, 'Trains on a Cloud TPU slice'),
    ],
)
def test_what_is_missing_is_named(play, arguments, settings, message):
    result = launch(play, *arguments, **settings)
    assert result.returncode == 1
    assert result.stderr.startswith(message)
    assert not (play / 'calls').exists()

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from tests.waiting import HANG_SECONDS, wait_until

LAUNCH = pathlib.Path(__file__).parents[2] / 'launch'
ARGUMENTS = ['--config.data.path=/data/my music', '--workdir=$HOME *', '']

# In place of the training: notes its arguments and environment, and ends with the next of the codes
# in PLAN (of its process, if it is one of several). At `wait` it waits for SIGTERM, notes how often
# it came, and ends with 75; at `saves` it saves a checkpoint, and fails.
TRAINING = """\
import json, os, signal, sys, time
process = [a.split('=')[1] for a in sys.argv if a.startswith('--process_id=')]
notes = os.environ['NOTES'] + ''.join(process)
plan = os.environ['PLAN'].split()
number = int(process[0]) if process else 0
if not process and os.path.exists(notes):
    number = len(open(notes).readlines())
signals = []
signal.signal(signal.SIGTERM, lambda *_: signals.append(1))
with open(notes, 'a') as file:
    file.write(json.dumps([sys.argv[1:], os.getpid(), os.environ.get('XLA_FLAGS')]) + '\\n')
print('trains', flush=True)
if plan[number] == 'wait':
    while not signals:
        time.sleep(0.02)
    time.sleep(0.3)
    print('signals', len(signals), flush=True)
    sys.exit(75)
if plan[number] == 'killed':
    os.kill(os.getpid(), signal.SIGKILL)
if plan[number] == 'saves':
    workdir = [a.split('=')[1] for a in sys.argv if a.startswith('--workdir=')]
    os.makedirs(os.path.join(*workdir, 'checkpoints', '400'))
    sys.exit(3)
sys.exit(int(plan[number]))
"""

# Runs a command in a terminal of its own, and types there what comes in.
TERMINAL = 'import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))'


@pytest.fixture
def play(tmp_path):
    """A folder with a `python` that plays the training, and runs all other code."""
    (tmp_path / 'training.py').write_text(TRAINING)
    python = tmp_path / 'python'
    python.write_text(
        f'#!/usr/bin/env bash\nif [[ $1 == -m ]]; then set -- {tmp_path}/training.py "$@"; fi\n'
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    return tmp_path


def start(play, plan, name, *arguments, within=(), **settings):
    return subprocess.Popen(
        [*within, LAUNCH / name, *arguments],
        cwd='/',
        env={
            'PATH': f'{play}:{os.environ["PATH"]}',
            'NOTES': f'{play}/notes',
            'PLAN': plan,
            'PAUSE': '0',
            'JAX_PLATFORMS': 'cpu',
            **settings,
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """The exit code, and the lines of output and of errors."""
    output, errors = process.communicate(timeout=HANG_SECONDS)
    return process.returncode, output.splitlines(), errors.splitlines()


def read_notes(play, process=''):
    return [json.loads(line) for line in (play / f'notes{process}').read_text().splitlines()]


def wait_for_files(*files):
    wait_until(lambda: all(file.exists() and file.read_text().endswith('\n') for file in files))


@pytest.mark.parametrize(
    ('plan', 'restarts', 'code', 'runs'),
    [('75 75 0', '9', 0, 3), ('75 1', '9', 1, 2), ('75 75 75', '1', 75, 2), ('0', '9', 0, 1)],
)
def test_what_was_interrupted_is_run_again(play, plan, restarts, code, runs):
    process = start(play, plan, 'local_multi_gpu.sh', *ARGUMENTS, RESTARTS=restarts)
    assert finish(process)[:2] == (code, ['trains'] * runs)
    assert [note[0] for note in read_notes(play)] == [['-m', 'm2l_jax.train', *ARGUMENTS]] * runs


def test_without_a_gpu_it_does_not_train_on_the_cpu(play):
    nowhere = {'JAX_PLATFORMS': '', 'CUDA_VISIBLE_DEVICES': ''}
    code, output, errors = finish(start(play, '0', 'local_multi_gpu.sh', *ARGUMENTS, **nowhere))
    assert (code, output, len(errors)) == (1, [], 1)
    assert errors[0].startswith("error: jax finds no GPU: pip install -e '.[cuda]'")


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_once_and_ends_the_restarts(play, number):
    process = start(play, 'wait 0', 'local_multi_gpu.sh', *ARGUMENTS)
    wait_for_files(play / 'notes')
    process.send_signal(number)
    assert finish(process) == (75, ['trains', 'signals 1'], [])


def test_processes_get_their_numbers_one_address_and_their_devices(play):
    process = start(play, '0 0 0', 'local_multi_process.sh', *ARGUMENTS, PROCESSES='3', DEVICES='5')
    code, output, errors = finish(process)
    assert (code, errors) == (0, [])
    expected = [f'[{number}] {what}' for number in range(3) for what in ('exit code 0', 'trains')]
    assert sorted(output) == expected
    notes = [read_notes(play, str(number)) for number in range(3)]
    addresses = {note[0][0][-3] for note in notes}
    assert len(addresses) == 1
    address, port = addresses.pop().rsplit(':', 1)
    assert address == '--coordinator=localhost'
    assert 1024 <= int(port) < 65536
    for number, ((arguments, _, flags),) in enumerate(notes):
        assert arguments[:-3] == ['-m', 'm2l_jax.train', *ARGUMENTS]
        assert arguments[-2:] == ['--num_processes=3', f'--process_id={number}']
        assert flags.split() == ['--xla_force_host_platform_device_count=5']


@pytest.mark.parametrize(
    ('plan', 'code'), [('0 75', 75), ('75 0', 75), ('75 1', 1), ('1 75', 1), ('0 3', 3)]
)
def test_the_worst_exit_code_is_given_on(play, plan, code):
    assert finish(start(play, plan, 'local_multi_process.sh', *ARGUMENTS))[0] == code


def test_a_signal_reaches_each_process_once_and_leaves_none(play):
    process = start(play, 'wait wait', 'local_multi_process.sh', *ARGUMENTS)
    wait_for_files(play / 'notes0', play / 'notes1')
    process.send_signal(signal.SIGTERM)
    code, output, _ = finish(process)
    assert code == 75
    assert {'[0] signals 1', '[1] signals 1'} <= set(output)
    for number in range(2):
        ((_, pid, _),) = read_notes(play, str(number))
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize(
    ('name', 'notes'),
    [('local_multi_gpu.sh', ['notes']), ('local_multi_process.sh', ['notes0', 'notes1'])],
)
def test_ctrl_c_in_a_terminal_reaches_each_process_once(play, name, notes):
    terminal = [sys.executable, '-c', TERMINAL]
    process = start(play, 'wait wait', name, *ARGUMENTS, within=terminal)
    wait_for_files(*(play / note for note in notes))
    process.stdin.write('\x03')
    process.stdin.flush()
    assert process.wait(HANG_SECONDS) == 75
    assert process.stdout.read().count('signals 1\n') == len(notes)


def test_after_an_error_the_others_are_told_to_end(play):
    process = start(play, 'wait killed', 'local_multi_process.sh', *ARGUMENTS)
    code, output, errors = finish(process)
    assert (code, errors) == (137, [])
    assert {'[0] signals 1', '[1] exit code 137'} <= set(output)


@pytest.mark.parametrize(('code', 'done'), [(0, True), (75, True), (1, False)])
def test_what_was_trained_is_packed_for_taking_away(play, code, done):
    (play / 'old').mkdir()
    (play / 'old' / 'manifest.json').touch()
    settings = {'MINUTES': '9', 'OUTPUT': 'my out', 'FROM': f'{play}/old', 'FORM': 'exact'}
    arguments = ['--config=a b', f'--workdir={play}/my run']
    process = start(play, f'0 {code} 0 0', 'train_for.sh', *arguments, **settings)
    assert finish(process)[0] == code
    expected = [
        ['tools.carry', f'--from={play}/old', f'--to={play}/my run'],
        ['m2l_jax.train', '--minutes=9', *arguments],
        [
            *('tools.carry', f'--from={play}/my run', '--to=my out/run'),
            *('--form=exact', '--part_megabytes=15'),
        ],
        ['m2l_jax.plot', f'--workdir={play}/my run', '--output=my out'],
    ]
    assert [note[0][1:] for note in read_notes(play)] == (expected if done else expected[:2])


@pytest.mark.parametrize(
    ('plan', 'code', 'packs'),
    [
        ('75 0 1', 75, True),  # without curves, too
        ('1', 1, False),  # such as for a mistyped flag: what was packed before is left alone
        ('saves 0 0', 3, True),
        ('saves 1 0', 3, True),
        ('75 1 0', 1, True),  # what cannot be packed is not done
    ],
)
def test_a_run_goes_on_from_its_own_checkpoints(play, plan, code, packs):
    (play / 'run' / 'checkpoints' / '200').mkdir(parents=True)
    settings = {'MINUTES': '9', 'OUTPUT': 'out', 'FROM': '/nowhere'}
    process = start(play, plan, 'train_for.sh', f'--workdir={play}/run', **settings)
    assert finish(process)[0] == code
    commands = [note[0][1] for note in read_notes(play)]
    assert commands == ['m2l_jax.train', *['tools.carry', 'm2l_jax.plot'] * packs]


@pytest.mark.parametrize('left', ['run', 'run/checkpoints', 'run/checkpoints/200.tmp'])
def test_a_folder_that_holds_nothing_carried_is_told(play, left):
    (play / left).mkdir(parents=True)  # without a whole checkpoint
    settings = {'MINUTES': '9', 'OUTPUT': 'out', 'FROM': '/nowhere'}
    code, _, errors = finish(start(play, '0', 'train_for.sh', f'--workdir={play}/run', **settings))
    assert (code, len(errors)) == (1, 1)
    assert errors[0].startswith('error: FROM=/nowhere holds no manifest.json')
    assert not (play / 'notes').exists()


@pytest.mark.parametrize(
    'name', ['again.sh', 'local_multi_gpu.sh', 'local_multi_process.sh', 'train_for.sh']
)
def test_without_arguments_the_usage_is_shown(play, name):
    code, output, errors = finish(start(play, '0', name))
    assert (code, output) == (1, [])
    assert errors[0].startswith('usage: ')

"""Each benchmark runs at the smallest size, and writes what is asked of it."""

import json
import math
import os
import socket
import subprocess
import sys
import threading
import types
from multiprocessing.connection import Connection

import pytest

from benchmarks import contest, options, report, timing
from benchmarks.options import dtypes, numbers
from benchmarks.remote import Failed, Remote
from m2l_jax.interface.errors import InputError
from tests.benchmarks.running import ROOT, run
from tests.parity.small import require_reference

MACHINE = {'date', 'command', 'hardware', 'versions'}


def test_codec_by_the_gpu_command_where_another_part_fails(tmp_path):
    require_reference()
    output = tmp_path / 'new' / 'gpu.json'
    codec = '--seconds=0.5 --channels=2 --pieces=1 --batches=8 --directions=decode --rounds=2'
    printed = run(
        'gpu',
        '--device=cpu',
        '--model=small',
        '--parts=training,codec',
        '--training=--styles=quick',
        f'--codec={codec} --styles=eager',
        f'--output={output}',
        exit_code=1,
    )
    whole = json.loads(output.read_text())
    assert whole['training'] == {'failed': 'exit code 1'}
    assert list(output.parent.iterdir()) == [output]
    figures = whole['codec']
    assert whole.keys() >= MACHINE
    assert figures.keys() >= MACHINE | {'device', 'model', 'rounds'}
    assert figures['latents_agree_to_decibels']['float32'] >= 95
    assert figures['latents_agree_to_decibels']['bfloat16'] > 15
    (case,) = figures['cases']
    assert case['direction'] == 'decode'
    assert case['ways'] == {
        'ours float32': 'ours float32, batch 2',  # no more rows at once than there are
        'ours bfloat16': 'ours bfloat16, batch 2',
        'package default': 'package eager, batch 1',
        'package best': 'package eager, batch 2',
    }
    assert case['seconds'].keys() == case['facts'].keys() == case['ways'].keys()
    assert all(seconds > 0 for seconds in case['seconds'].values())
    assert len(case['times_as_fast']['ours float32 over package best']['by_round']) == 2
    assert all(facts['peak_memory_gb'] > 0.01 for facts in case['facts'].values())
    assert 'over default' in printed


# Whatever is given a time has no time left.
NO_TIME = """
from multiprocessing.connection import Connection
poll = Connection.poll
Connection.poll = lambda self, seconds: seconds is None and poll(self, seconds)
"""


def test_a_case_that_fails_is_told_and_the_next_is_tried(tmp_path):
    require_reference()
    output = tmp_path / 'codec.json'
    sizes = ('--seconds=0.5,1', '--channels=1', '--pieces=2', '--batches=1,2', '--styles=eager')
    run(
        'codec',
        '--model=small',
        '--directions=encode',
        *sizes,
        f'--output={output}',
        exit_code=1,
        before=NO_TIME,
    )
    cases = json.loads(output.read_text())['cases']
    assert [case['seconds_of_a_piece'] for case in cases] == [0.5, 1.0]
    for case in cases:
        assert case['failed'].startswith('ours float32 cannot run (ours float32, batch 1: took')


def test_training(tmp_path):
    require_reference()
    output = tmp_path / 'training.json'
    printed = run(
        'training',
        '--model=small',
        '--styles=eager',
        '--rounds=2',
        '--frames=8',
        '--batch=2',
        f'--output={output}',
    )
    figures = json.loads(output.read_text())
    assert figures.keys() >= MACHINE | {'device', 'model', 'batch', 'tried'}
    peak = max(figures['matrix_peak_tflop_a_second'].values())
    for name, step in figures['steps'].items():
        assert step['crops_a_second'] == pytest.approx(2 / step['seconds_a_step'], rel=1e-3)
        used = step['crops_a_second'] * figures['tflop_a_crop'] / peak
        assert step['model_flop_utilisation'] == pytest.approx(used, rel=1e-3)
        assert figures['facts'][name]['peak_memory_gb'] > 0.01
    assert figures['facts']['ours float32']['compiling_seconds'] > 0
    assert set(figures['times_as_fast']) == {
        'ours float32 over package default',
        'ours float32 over package best',
    }
    assert 'utilisation' in printed


def test_input(tmp_path):
    output = tmp_path / 'input.json'
    run('input', '--batches=10', '--batch_size=2', f'--output={output}')
    results = json.loads(output.read_text())['results']
    assert [result['representation'] for result in results] == ['waveform', 'spectrogram']
    assert all(result['crops_per_second_median'] > 0 for result in results)


def test_corpus(tmp_path):
    output = tmp_path / 'corpus.json'
    run(
        'corpus',
        '--model=small',
        '--files=2',
        '--seconds=1',
        '--rounds=1',
        '--noreference',
        f'--output={output}',
    )
    figures = json.loads(output.read_text())
    assert figures.keys() >= MACHINE
    real_time = figures['times_real_time']
    ratio = figures['times_as_fast']['corpus over bare']['median']
    assert ratio == pytest.approx(real_time['corpus'] / real_time['bare'], rel=2e-3)


def test_ratios_are_of_one_round():
    turns = iter([1.0, 2.0, 3.0, 3.0, 2.0, 5.0])
    ways = {'ours': lambda: next(turns), 'theirs': lambda: next(turns)}
    seconds = timing.alternate(ways, 3)
    assert seconds == {'ours': [1.0, 3.0, 2.0], 'theirs': [2.0, 3.0, 5.0]}
    assert timing.times_as_fast(seconds, 'ours', 'theirs') == {
        'median': 2.0,
        'by_round': [2.0, 1.0, 2.5],
    }
    assert timing.medians(seconds) == {'ours': 2.0, 'theirs': 3.0}


def test_a_turn_lasts_a_second():
    runs = iter([0.25, 0.5, 0.75, 0.25])
    assert timing.lasting(lambda: next(runs)) == 0.5
    assert next(runs) == 0.25


class Sleeper:
    """Says that it took as long as it is told to, unless it fails or another holds its port.

    Where it is told to take forever it does, and makes a file once it has begun.
    """

    def __init__(self, fails, port=None, file=None):
        self._file = file
        if fails:
            raise fails
        if port:
            self._only_one = socket.create_server(('localhost', port))

    def run(self, seconds):
        if seconds < 0:
            os._exit(3)
        if seconds == math.inf:
            self._file.touch()
            threading.Event().wait()
        return seconds

    def forget_peak(self):
        pass

    def facts(self):
        return {}


MAKE = 'tests.benchmarks.test_benchmarks:Sleeper'


def sleeper(name, seconds, fails=None, file=None):
    return contest.Way(name, MAKE, (('fails', fails), ('file', file)), (seconds,))


@pytest.fixture
def endless(tmp_path, monkeypatch):
    """One that never ends; and nobody's time is over but its own, once it has begun."""
    begun, poll = tmp_path / 'begun', Connection.poll

    def wait(connection, seconds):
        while not poll(connection, 0.05):
            if begun.exists():
                begun.unlink()
                return False
        return True

    monkeypatch.setattr(Connection, 'poll', wait)
    return sleeper('endless', math.inf, file=begun)


def test_what_fails_or_takes_too_long_is_told_and_the_fastest_runs(endless):
    broken = sleeper('broken', 1.0, OSError('no compiler\nand more'))
    fast, slow = sleeper('fast', 1.0), sleeper('slow', 4.0)
    result = contest.Contest({'ours': [fast, slow]}, [broken, slow, endless], slow).hold(2, 1.0)
    assert result['tried'] == {
        'broken': 'OSError: no compiler',
        'slow': 4.0,
        'endless': 'took more than 1 s',
        'fast': 1.0,
    }
    assert result['ways'] == {'ours': 'fast', 'package default': 'slow', 'package best': 'slow'}
    assert result['times_as_fast']['ours over package best']['by_round'] == [4.0, 4.0]
    # Without a compiler the package's best is its default.
    result = contest.Contest({'ours': [fast]}, [broken], slow).hold(1, 1.0)
    assert result['tried'] == {'broken': 'OSError: no compiler'}
    assert result['ways'] == {'ours': 'fast', 'package default': 'slow', 'package best': 'slow'}


def test_turns_of_those_that_do_not_fit_together(capfd):
    with socket.create_server(('localhost', 0)) as free:
        port = free.getsockname()[1]
    ours, theirs = (
        contest.Way(name, MAKE, (('fails', None), ('port', port)), (seconds,))
        for name, seconds in (('ours', 1.0), ('theirs', 3.0))
    )
    result = contest.Contest({'ours': [ours]}, [theirs], theirs).hold(2, None)
    assert result['seconds_by_round']['ours'] == [1.0, 1.0]
    assert result['times_as_fast']['ours over package best']['by_round'] == [3.0, 3.0]
    assert result['facts']['ours'] == {'first_turn_seconds': 1.0, 'alone': True}
    assert 'not side by side: OSError' in capfd.readouterr().err


def test_ours_and_the_default_must_run():
    broken, fast = sleeper('broken', 1.0, OSError('no memory')), sleeper('fast', 1.0)
    other = sleeper('other', 2.0, OSError('none at all'))
    with pytest.raises(InputError, match=r'ours cannot run .broken: .*memory; other: .*at all.'):
        contest.Contest({'ours': [broken, other]}, [fast], fast).hold(1, None)
    with pytest.raises(InputError, match='of fast, broken, one cannot run: OSError: no memory'):
        contest.Contest({'ours': [fast]}, [broken], broken).hold(1, None)


def test_a_mistake_over_there_is_one_here():
    with pytest.raises(InputError, match='of the user'):
        Remote(MAKE, {'fails': InputError('of the user')})
    with pytest.raises(Failed, match='ZeroDivisionError'):
        Remote(MAKE, {'fails': ZeroDivisionError()})


def test_a_process_that_ends_fails_this_call_and_the_next():
    with Remote(MAKE, {'fails': None}) as remote:
        for _ in range(2):
            with pytest.raises(Failed, match='its process ended with code 3'):
                remote.call('run', -1)


# The time of a part is over once it has written something.
UNTIL_WRITTEN = """
import pathlib, subprocess, time
def wait(process, timeout=None, wait=subprocess.Popen.wait):
    if timeout is None:
        return wait(process)
    while process.poll() is None and not pathlib.Path({file!r}).exists():
        time.sleep(0.1)
    return wait(process, 0)
subprocess.Popen.wait = wait
"""


def test_a_part_that_takes_too_long_leaves_what_it_came_to(tmp_path):
    require_reference()
    output = tmp_path / 'gpu.json'
    run(
        'gpu',
        '--device=cpu',
        '--model=small',
        '--parts=training',
        '--minutes=0.25',
        '--training=--steps=100000',
        f'--output={output}',
        exit_code=1,
        before=UNTIL_WRITTEN.format(file=str(tmp_path / 'gpu.part.json')),
    )
    training = json.loads(output.read_text())['training']
    assert training['failed'] == 'took more than 0.25 minutes'
    assert training['batch'] == 16


def test_the_command_that_is_kept(monkeypatch):
    for name in report.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('XLA_FLAGS', '--a --b')
    arguments = ['--styles=compiled channels last', '--output=/home/me/codec.json']
    monkeypatch.setattr(sys, 'argv', [f'{ROOT}/benchmarks/codec.py', *arguments])
    assert report.describe_machine()['command'] == (
        "XLA_FLAGS='--a --b' python -m benchmarks.codec '--styles=compiled channels last'"
    )


def test_unknown_style():
    with pytest.raises(InputError, match="'quick': on cpu there are eager, "):
        options.chosen_styles(['eager', 'quick'], 'cpu')
    names = [style.name for style in options.chosen_styles(None, 'cuda')]
    assert len(names) == 9
    assert names[0] == options.default_style('cuda').name == 'eager autocast'
    assert 'compiled channels last autocast tuned' in names


@pytest.mark.parametrize(
    ('read', 'given', 'message'),
    [
        (lambda flag: numbers(flag, float), 'ten', 'must be numbers above 0, commas between'),
        (lambda flag: numbers(flag, int), '1,0', 'must be whole numbers above 0, commas between'),
        (lambda flag: numbers(flag, int), '1.5', 'must be whole numbers above 0, commas between'),
        (dtypes, 'int8', 'must be of float32, bfloat16, commas between'),
    ],
)
def test_values_of_flags(read, given, message):
    flag = types.SimpleNamespace(name='some', value=given.split(','))
    with pytest.raises(InputError, match=f"^--some='{given}' {message}$"):
        read(flag)


@pytest.mark.parametrize(
    ('name', 'argument', 'error'),
    [
        ('codec', '--seconds=0.1', '--seconds has 0.1: the model takes 0.13 s at least'),
        (
            'gpu',
            '--parts=speed',
            "--parts='speed' must be of numbers, codec, training, commas between",
        ),
    ],
)
def test_a_mistake_is_told_in_a_line(name, argument, error):
    command = [sys.executable, '-m', f'benchmarks.{name}', argument]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f'error: {error}\n')


def test_without_a_gpu_nothing_runs_on_one(tmp_path):
    require_reference()
    output = tmp_path / 'gpu.json'
    command = [sys.executable, '-m', 'benchmarks.gpu', '--model=small', f'--output={output}']
    none = {**os.environ, 'CUDA_VISIBLE_DEVICES': ''}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=none)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith('error: --device=cuda: JAX finds no GPU: ')
    assert not output.exists()

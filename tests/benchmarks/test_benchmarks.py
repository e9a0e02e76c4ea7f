"""Each benchmark runs at the smallest size, and writes what is asked of it."""

import json
import os
import subprocess
import sys
import types

import pytest

from benchmarks import options, report, small_model, timing
from benchmarks.options import dtypes, numbers
from m2l_jax.interface.errors import InputError
from tests.benchmarks.running import ROOT, run
from tests.parity.small import require_reference

MACHINE = {'date', 'command', 'hardware', 'versions'}


def test_codec_by_the_gpu_command_where_another_part_fails(tmp_path):
    require_reference()
    output = tmp_path / 'new' / 'gpu.json'
    codec = '--seconds=0.5 --channels=2 --pieces=1 --batches=8 --directions=encode --rounds=2'
    printed = run(
        'gpu',
        '--device=cpu',
        '--model=small',
        '--parts=training,codec',
        '--training=--styles=quick',
        f'--codec={codec} --styles=eager,"eager autocast"',
        '--side_by_side=2',
        f'--output={output}',
        exit_code=1,
    )
    whole = json.loads(output.read_text())
    assert whole['training'] == {'failed': 'exit code 1'}
    assert list(output.parent.iterdir()) == [output]
    figures = whole['codec']
    assert whole.keys() >= MACHINE
    assert figures.keys() >= MACHINE | {'device', 'model', 'rounds'}
    assert figures['latents_agree_to_decibels'] >= 95
    (case,) = figures['cases']
    assert case['direction'] == 'encode'
    assert case['precisions'].keys() == {'float32', 'bfloat16'}
    for dtype, style in (('float32', 'eager'), ('bfloat16', 'eager autocast')):
        match = case['precisions'][dtype]
        assert match['ways'].keys() == match['seconds'].keys() == match['facts'].keys()
        assert match['ways']['ours'] == f'ours {dtype}, batch 2'  # no more rows than there are
        assert match['ways']['package default'] == f'package {style}, batch 1'
        assert match['tried'].keys() == {f'package {style}, batch {batch}' for batch in (1, 2)}
        assert all(seconds > 0 for seconds in match['seconds'].values())
        assert len(match['times_as_fast']['over package best']['by_round']) == 2
        assert all(facts['peak_memory_gb'] > 0.01 for facts in match['facts'].values())
    decibels = case['precisions']['bfloat16']['latents_snr']
    assert decibels.keys() == {
        'ours bfloat16, batch 2',
        'package eager autocast, batch 1',
        'package eager autocast, batch 2',
    }
    # So small a model of ours has few products in bfloat16, and none on some processors.
    ours = decibels.pop('ours bfloat16, batch 2')
    assert ours is None or ours > 20
    assert all(20 < value < 70 for value in decibels.values())
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
        failed = case['precisions']['float32']['failed']
        assert failed.startswith('ours cannot run (ours float32, batch 1: took more than')


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
    assert figures.keys() >= MACHINE | {'device', 'model', 'batch', 'precisions'}
    for dtype, style in (('float32', 'eager'), ('bfloat16', 'eager autocast')):
        match = figures['precisions'][dtype]
        for name, step in match['steps'].items():
            assert step['crops_a_second'] == pytest.approx(2 / step['seconds_a_step'], rel=1e-3)
            peak = figures['matrix_peak_tflop_a_second'][dtype]
            used = step['crops_a_second'] * figures['tflop_a_crop'] / peak
            assert step['model_flop_utilisation'] == pytest.approx(used, rel=2e-3)
            assert match['facts'][name]['peak_memory_gb'] > 0.01
        assert match['facts']['ours']['compiling_seconds'] > 0
        assert set(match['times_as_fast']) == {'over package default', 'over package best'}
        assert match['ways']['package best'] == f'package {style}'
    decibels = figures['precisions']['bfloat16']['latents_snr']
    assert decibels.keys() == {'ours bfloat16', 'package eager autocast'}
    assert all(20 < value < 70 for value in decibels.values())
    assert 'utilisation' in printed


def test_without_time_all_is_named_and_nothing_runs(tmp_path):
    require_reference()
    output = tmp_path / 'training.json'
    flags = ('--model=small', '--dtypes=float32', '--styles=eager', '--minutes=0.001')
    run('training', *flags, f'--output={output}', exit_code=1)
    match = json.loads(output.read_text())['precisions']['float32']
    assert match['failed'] == (
        'ours cannot run (ours float32: not ready in time); '
        'package default cannot run (package eager: not ready in time)'
    )
    assert match['ways'] == match['seconds'] == match['steps'] == {}


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
    with pytest.raises(InputError, match="'eager tuned': on cpu there are eager, "):
        options.chosen_styles(['eager tuned'], 'cpu')


def test_styles_that_are_tried():
    on_a_cpu = options.chosen_styles(None, 'cpu')
    assert [style.name for style in options.styles_of(on_a_cpu, 'bfloat16')] == [
        'eager autocast',
        'eager channels last autocast',
        'compiled autocast',
        'compiled channels last autocast',
    ]
    assert [style.name for style in options.styles_of(on_a_cpu, 'float32')] == [
        'eager',
        'eager channels last',
        'compiled',
        'compiled channels last',
    ]
    on_a_gpu = options.chosen_styles(None, 'cuda')
    assert [style.name for style in options.styles_of(on_a_gpu, 'bfloat16')] == [
        'eager autocast',
        'compiled autocast tuned',
        'compiled channels last autocast tuned',
    ]
    # The default is always there.
    assert [style.name for style in options.styles_of(on_a_gpu, 'float32')] == ['eager']


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


def test_streaming_waits_for_a_chunk(tmp_path):
    small_model.save(tmp_path / 'model.safetensors')
    output = tmp_path / 'streaming.json'
    run(
        'streaming',
        f'--checkpoint={tmp_path / "model.safetensors"}',
        '--seconds=1',
        '--chunk_seconds=0.3,0.6',
        '--overlap=0.1',
        '--rounds=1',
        f'--output={output}',
    )
    figures = json.loads(output.read_text())
    assert figures.keys() >= MACHINE
    assert figures['audio_seconds'] == 1
    step = 1024 / 44_100
    waits = {name: row['waits'] for name, row in figures['chunks'].items()}
    assert waits == {
        '0.3 s': pytest.approx(12 * step, rel=1e-3),
        '0.6 s': pytest.approx(25 * step, rel=1e-3),
    }
    for row in figures['chunks'].values():
        assert row['x_real_time'] == pytest.approx(1 / row['seconds'][0], rel=1e-2)
        assert 0 < row['computes'] <= row['seconds'][0]

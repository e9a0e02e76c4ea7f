"""An evaluation that lacks packages, is on a full disk, or is ended."""

import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from m2l_jax.evaluation.metrics import ALL_METRICS
from m2l_jax.evaluation.perception.packages import Package
from m2l_jax.evaluation.quality import evaluate
from m2l_jax.evaluation.reporting.table import describe_report
from m2l_jax.interface.errors import InputError
from tests.conftest import largest_file, make_music, on_one_device

REPOSITORY = pathlib.Path(__file__).parents[2]


def test_metrics_without_their_packages_are_named_and_left_out(
    models, tmp_path, without_levels, monkeypatch, caplog
):
    monkeypatch.setattr(Package, 'is_installed', lambda package: package.module != 'visqol')
    model, inputs = str(models / 'a.safetensors'), str(models / 'a.wav')
    report = evaluate(model, inputs, tmp_path, seconds=0.25, media=1, untrained=2, processes=1)
    line = "ViSQOL is left out: visqol is not installed: pip install 'm2l-jax[evaluate]'"
    assert report['left_out_metrics'] == {'visqol': line}
    assert caplog.messages.count(line) == 1
    table = describe_report(report).splitlines()
    assert line in table
    assert not any(row.startswith('ViSQOL,') for row in table)
    names = [name for name, m in ALL_METRICS.items() if name != 'visqol' and not m.stereo]
    assert list(report['metrics']) == names
    assert all(list(system['mean']) == names for system in report['systems'].values())
    assert (tmp_path / 'clips.csv').read_text().splitlines()[0] == ','.join(
        ('clip', 'system', *names)
    )
    assert 'ViSQOL' not in (tmp_path / 'index.html').read_text()

    # The untrained model is measured on two of the three pieces.
    clips = {name: list(system['clips']) for name, system in report['systems'].items()}
    assert clips == {
        model: ['00_a_00', '00_a_01', '00_a_02'],
        'untrained': ['00_a_00', '00_a_01'],
        'shaped noise': ['00_a_00', '00_a_01', '00_a_02'],
    }
    mel = next(row for row in table if row.startswith('mel distance'))
    assert mel.count(' of 2') == 1

    alone = evaluate(model, inputs, tmp_path / 'b', seconds=0.25, media=0, untrained=0, processes=0)
    assert list(alone['systems']) == [model, 'shaped noise']
    for name in alone['systems']:
        for clip, figures in alone['systems'][name]['clips'].items():
            measured = report['systems'][name]['clips'][clip]
            assert measured == pytest.approx(figures, rel=1e-9, nan_ok=True)


def test_a_full_disk_is_one_line(models, tmp_path, without_levels):
    model, inputs = str(models / 'a.safetensors'), str(models / 'a.wav')
    with (
        largest_file(60_000),
        pytest.raises(InputError, match=r'00_a_00\.png cannot be written \(File too large\)$'),
    ):
        evaluate(model, inputs, tmp_path, seconds=0.25, media=1, untrained=0, processes=0)
    suffixes = ('.png', '.html', '.json', '.partial')
    assert not [path for path in tmp_path.iterdir() if path.suffix in suffixes]


def test_seeds_that_keys_cannot_take_are_refused_first(tmp_path):
    with pytest.raises(
        InputError, match=r'^--seed=4294967295 --seeds=2: the last seed, 4294967296, is above'
    ):
        evaluate('missing', 'missing', tmp_path, seed=4294967295, seeds=2)


def test_an_error_in_a_process_is_one_line(models, tmp_path, without_levels, monkeypatch):
    monkeypatch.setitem(ALL_METRICS, 'unknown', ALL_METRICS['mel'])  # unknown to the process
    model, inputs = str(models / 'a.safetensors'), str(models / 'a.wav')
    with pytest.raises(InputError) as error:
        evaluate(model, inputs, tmp_path / 'out', seconds=0.25, media=1, processes=1)
    assert str(error.value) == (
        "measure_named failed (KeyError: 'unknown'): --processes=0 shows where"
    )
    assert not (tmp_path / 'out').exists()


def test_evaluate_ends_at_once_and_writes_nothing_when_it_is_interrupted(models, tmp_path):
    soundfile.write(tmp_path / 'a.wav', np.tile(make_music(0.4), 500).T, 44_100)
    flags = (f'--checkpoint={models / "a.safetensors"}', f'--input={tmp_path / "a.wav"}')
    flags += ('--seconds=0.4', '--embeddings=', f'--output={tmp_path / "out"}')
    with subprocess.Popen(
        [sys.executable, '-m', 'm2l_jax.evaluate', *flags],
        cwd=REPOSITORY,
        env=on_one_device(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert any('measuring 500 pieces' in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 75
    assert rest.splitlines()[-1] == 'stopped: run the same command again'
    assert 'Traceback' not in rest
    assert not (tmp_path / 'out').exists()

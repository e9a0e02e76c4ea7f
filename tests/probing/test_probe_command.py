"""The command as a user meets it: in a process of its own."""

import json
import pathlib
import subprocess
import sys

from benchmarks.notes import render
from m2l_jax.torch_weights.conversion import save_torch_model
from tests.commands import tiny
from tests.conftest import on_one_device
from tests.torch_weights.test_conversion import random_params
from tests.waiting import HANG_SECONDS

REPOSITORY = pathlib.Path(__file__).parents[2]


def run(*flags):
    return subprocess.run(
        [sys.executable, '-m', 'm2l_jax.probe', *flags],
        cwd=REPOSITORY,
        env=on_one_device(),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )


def test_a_table_is_printed_and_a_report_written(tmp_path):
    save_torch_model(tmp_path / 'model.safetensors', tiny.MODEL, random_params(tiny.MODEL))
    listed = render(tmp_path / 'notes', instruments=2, pitches=3, variants=2, seconds=0.1)
    result = run(
        f'--checkpoint={tmp_path / "model.safetensors"}',
        f'--data={listed}',
        '--task=instrument',
        '--features=latents',
        '--nobaselines',
        '--limit=10',
        f'--output={tmp_path / "out"}',
    )
    assert result.returncode == 0, result.stderr
    assert 'instrument: 2 test clips, 2 classes' in result.stdout
    report = json.loads((tmp_path / 'out' / 'report.json').read_text())
    assert report['clips'] == 10
    assert 'latents' in report['tasks']['instrument']['systems']


def test_a_mistake_is_one_line(tmp_path):
    result = run('--checkpoint=small', '--data=/nowhere.csv', '--task=pitch', '--output=x')
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith('error: /nowhere.csv cannot be read')
    assert 'Traceback' not in result.stderr

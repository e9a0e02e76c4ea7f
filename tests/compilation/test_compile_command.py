"""The command, with a compiler that tells nothing of the program's work."""

import json
import pathlib
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).parents[2]
CODE = """
import math, sys
from m2l_jax import compile
from m2l_jax.compilation import fitting
from m2l_jax.compilation.report import Report
from m2l_jax.interface import command

report = Report(
    'train', 'v4:2x2x1', 4, 1, 2, 9, 1 << 35, 1, 1, 1, 3, math.nan, math.nan, None, [], 1.0,
    math.inf, math.nan, 0.0, 0.0, (),
)
fitting.compile_config = lambda *_: report
command.run(compile.main)
"""


@pytest.mark.parametrize('flags', [['--json'], []])
def test_what_is_not_known_is_null_or_told(flags):
    result = subprocess.run(
        [sys.executable, '-c', CODE, '--config=configs/demo.py', '--topology=v4-8', *flags],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    if flags:
        report = json.loads(result.stdout, parse_constant=pytest.fail)
        unknown = {name for name, value in report.items() if value is None}
        expected = {'flops', 'accessed', 'kernels', 'compiler_seconds', 'roofline_seconds'}
        assert unknown == expected
        assert (report['chips'], report['compile_seconds']) == (4, 1.0)
    else:
        assert 'unknown FLOP, unknown B of memory traffic' in result.stdout
        assert 'nan' not in result.stdout

"""Runs a benchmark as its user does."""

import pathlib
import subprocess
import sys

from tests.conftest import on_one_device

ROOT = pathlib.Path(__file__).parents[2]


def run(name: str, *arguments: str, exit_code: int = 0) -> str:
    """What it prints."""
    command = [sys.executable, '-m', f'benchmarks.{name}', *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=on_one_device())
    assert done.returncode == exit_code, done.stderr
    return done.stdout

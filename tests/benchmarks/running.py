"""Runs a benchmark as its user does."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def run(name: str, *arguments: str) -> str:
    """What it prints."""
    environment = {**os.environ, 'XLA_FLAGS': ''}  # the tests' own, of several devices
    command = [sys.executable, '-m', f'benchmarks.{name}', *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout

"""Runs a benchmark as its user does."""

import pathlib
import subprocess
import sys

from tests.conftest import on_one_device

ROOT = pathlib.Path(__file__).parents[2]


def run(name: str, *arguments: str, exit_code: int = 0, before: str = '') -> str:
    """Output of a command.

    Args:
      name: of the benchmark.
      arguments: its flags.
      exit_code: that it must end with.
      before: Python that its process runs first.
    """
    start = f'runpy.run_module("benchmarks.{name}", run_name="__main__", alter_sys=True)'
    command = [sys.executable, '-c', f'{before}\nimport runpy\n{start}', *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=on_one_device())
    assert done.returncode == exit_code, done.stderr
    return done.stdout

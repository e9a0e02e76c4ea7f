"""Runs commands, each in a fork of a process that has imported what takes seconds to import."""

import contextlib
import importlib
import json
import os
import pathlib
import runpy
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence

_ROOT = pathlib.Path(__file__).parents[1]
_IMPORTED = (
    'matplotlib.pyplot',
    'tensorflow_datasets',
    'm2l_jax.codec.encoder_decoder',
    'm2l_jax.corpus.run',
    'm2l_jax.evaluation.quality',
    'm2l_jax.probing.report',
    'm2l_jax.training.loop',
)
# Slow metrics need them: it is as after an install without the extra `evaluate`.
_HIDDEN = ('basic_pitch', 'musicnn', 'visqol')


class CommandServer(contextlib.AbstractContextManager):
    """Starts the process; `run` is `python -m MODULE ARGUMENTS` in a folder.

    Args:
      environment: of the process. It doesn't import conftest, which would set its own.
    """

    def __init__(self, environment: Mapping[str, str]):
        self._server = subprocess.Popen(
            [sys.executable, '-c', 'from tests import command_server; command_server.serve()'],
            cwd=_ROOT,
            env={**environment, 'MPLBACKEND': 'agg'},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        module: str,
        arguments: Sequence[str],
        folder: pathlib.Path,
        environment: Mapping[str, str],
    ) -> tuple[int, str]:
        """Returns the exit code and all that was printed."""
        log = folder / 'log.txt'
        job = [module, list(arguments), str(folder), str(log), dict(environment)]
        self._server.stdin.write(json.dumps(job) + '\n')
        self._server.stdin.flush()
        return int(self._server.stdout.readline()), log.read_text()

    def __exit__(self, *_: object) -> None:
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()


def serve() -> None:
    """Forks for each line of input, and answers with the exit code. Uses no devices itself."""
    for name in _IMPORTED:
        importlib.import_module(name)
    sys.modules.update(dict.fromkeys(_HIDDEN))
    for line in sys.stdin:
        child = os.fork()
        if not child:
            code = _run(*json.loads(line))
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _run(
    module: str, arguments: list[str], folder: str, log: str, environment: dict[str, str]
) -> int:
    os.chdir(folder)
    for number, path in ((0, os.devnull), (1, log), (2, log)):
        flags = os.O_RDWR | os.O_CREAT | (os.O_APPEND if number else 0)
        os.dup2(os.open(path, flags), number)
    os.truncate(log, 0)
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name='__main__', alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0

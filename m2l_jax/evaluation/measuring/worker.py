"""A process that computes functions for another one; see `workers`.

Reads pickled pairs of a function and its arguments from its standard input, up to the end, which
comes too when the other process dies. Writes for each one its result and '', or None and a line.
"""

import contextlib
import os
import pickle
import sys
import warnings
from typing import Any

from m2l_jax.interface.errors import InputError, first_line


def serve() -> None:
    """Answers until the input ends."""
    warnings.simplefilter('ignore')
    jobs, answers = sys.stdin.buffer, os.fdopen(os.dup(1), 'wb')
    os.dup2(2, 1)  # prints of libraries must not get among the answers
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            function, arguments = pickle.load(jobs)
            pickle.dump(_answer(function, arguments), answers)
            answers.flush()


def _answer(function: Any, arguments: tuple) -> tuple[Any, str]:
    try:
        return function(*arguments), ''
    except InputError as error:
        return None, str(error)
    except Exception as error:
        line = first_line(error)
        return None, (
            f'{function.__name__} failed ({type(error).__name__}: {line}): '
            '--processes=0 shows where'
        )


if __name__ == '__main__':
    serve()

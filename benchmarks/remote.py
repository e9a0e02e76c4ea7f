"""An object in its own process.

Frameworks then share no threads and memory, peaks of memory are separate, and a call can be ended.
"""

import importlib
import multiprocessing
import os
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

from m2l_jax.interface.errors import InputError, first_line

_GRACE = 10  # seconds


class Failed(InputError):
    """A failure in the other process, in a line."""


def use_device(device: str) -> None:
    """Has processes that start from now on compute on 'cpu' or 'cuda'; several share a GPU.

    Raises:
      InputError: if there is no GPU for 'cuda'.
    """
    os.environ['JAX_PLATFORMS'] = 'cpu' if device == 'cpu' else f'{device},cpu'
    os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'
    os.environ.setdefault('PYTORCH_CUDA_ALLOC_CONF', 'expandable_segments:True')
    if device == 'cuda':
        Remote('benchmarks.package:Gpu', {}).close()


class Remote:
    """Makes an object in another process; a context manager that ends the process.

    Args:
      make: 'module:class'.
      arguments: of the class, by name.
      budget: seconds for making it and for each call; None for no limit.

    Attributes:
      budget: seconds for each call from now on.

    Raises:
      Failed: if it cannot be made.
      InputError: if the class raises one.
    """

    def __init__(self, make: str, arguments: Mapping[str, Any], budget: float | None = None):
        context = multiprocessing.get_context('spawn')
        self._connection, other = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(other, make, dict(arguments)), daemon=True
        )
        self._process.start()
        other.close()
        try:
            self._answer(budget)
        except InputError:
            self.close()
            raise
        self.budget = budget

    def __enter__(self) -> 'Remote':
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def call(self, method: str, *arguments: Any) -> Any:
        """Calls a method and returns its result.

        Raises:
          Failed: if the method raises, its process ends, or the budget is over, which ends it.
        """
        try:
            self._connection.send((method, arguments))
        except OSError:
            raise self._ended() from None
        return self._answer(self.budget)

    def close(self, grace: float = _GRACE) -> None:
        """Lets the process end, and kills it after some seconds."""
        self._connection.close()
        self._process.join(grace)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _answer(self, budget: float | None) -> Any:
        try:
            if not self._connection.poll(budget):
                self.close(grace=0)
                raise Failed(f'took more than {budget:.0f} s')
            kind, value = self._connection.recv()
        except (EOFError, OSError):
            raise self._ended() from None
        if kind == 'result':
            return value
        raise InputError(value) if kind == 'mistake' else Failed(value)

    def _ended(self) -> Failed:
        self.close()
        return Failed(f'its process ended with code {self._process.exitcode}')


def _serve(connection: Connection, make: str, arguments: dict[str, Any]) -> None:
    """Makes the object, and answers calls until the other side closes the connection."""
    module, _, name = make.partition(':')
    served = _attempt(
        connection, lambda: getattr(importlib.import_module(module), name)(**arguments), False
    )
    while served is not None:
        try:
            method, positional = connection.recv()
            _attempt(connection, lambda: getattr(served, method)(*positional), True)  # noqa: B023
        except (EOFError, BrokenPipeError):  # the other side has gone
            return


def _attempt(connection: Connection, function: Any, sends_result: bool) -> Any:
    try:
        result = function()
    except InputError as error:
        connection.send(('mistake', str(error)))
    except Exception as error:  # reported by the other process
        traceback.print_exc()
        connection.send(('failure', f'{type(error).__name__}: {first_line(error)}'))
    else:
        connection.send(('result', result if sends_result else None))
        return result

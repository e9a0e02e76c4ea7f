"""Processes that compute figures while this one goes on decoding."""

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from m2l_jax.interface.errors import InputError

_WAITING = 2  # calls for each process, in work or waiting

# The processes share the cores already.
_ONE_THREAD = dict.fromkeys(
    ('NUMBA_NUM_THREADS', 'OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'), '1'
)


def core_count() -> int:
    """Cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return cores or 1


class Workers:
    """Processes that call functions, to be closed; without any, this process calls them itself.

    They are new interpreters, not forks, which JAX's threads forbid, and import what a function's
    module imports. They start with the first calls. Memory is bounded: `submit` waits while two
    calls for each process are not done. They end with this process, however it ends.

    Args:
      processes: their number, 0 for none.
    """

    def __init__(self, processes: int):
        self._processes: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        self._all = [_Process() for _ in range(processes)]
        for process in self._all:
            self._processes.put(process)
        self._threads = ThreadPoolExecutor(processes) if processes else None
        self._room = threading.Semaphore(_WAITING * processes)
        self._failure: Exception | None = None

    def __enter__(self) -> 'Workers':
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._all:
            process.end()
        if self._threads:
            self._threads.shutdown(cancel_futures=True)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> 'Future[Any]':
        """Calls a module's function with arguments that can be pickled.

        Raises:
          InputError: if an earlier call failed, or its process was killed; the future raises the
            same.
        """
        if self._threads is None:
            future: Future[Any] = Future()
            future.set_result(function(*arguments))
            return future
        self._room.acquire()
        if self._failure:
            raise self._failure
        future = self._threads.submit(self._call, function, arguments)
        future.add_done_callback(lambda _: self._room.release())
        return future

    def _call(self, function: Callable[..., Any], arguments: tuple) -> Any:
        process = self._processes.get()
        try:
            return process.call(function, arguments)
        except Exception as error:
            self._failure = error
            raise
        finally:
            self._processes.put(process)


class _Process:
    """One of the processes, which starts with its first call."""

    def __init__(self):
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ended = False
        self._lock = threading.Lock()

    def call(self, function: Callable[..., Any], arguments: tuple) -> Any:
        process = self._start()
        try:
            pickle.dump((function, arguments), process.stdin)
            process.stdin.flush()
            result, reason = pickle.load(process.stdout)
        except (OSError, EOFError, ValueError, pickle.UnpicklingError):
            raise InputError(self._describe_end()) from None
        if reason:
            raise InputError(reason)
        return result

    def end(self) -> None:
        """Kills it: it holds nothing."""
        with self._lock:
            self._is_ended = True
            if self._process:
                self._process.kill()
                self._process.wait()
                for pipe in (self._process.stdin, self._process.stdout, self._messages):
                    with contextlib.suppress(OSError):  # what a call could not send
                        pipe.close()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._is_ended:
                raise InputError('the processes were ended')
            if self._process is None:
                self._messages = tempfile.TemporaryFile()  # noqa: SIM115
                self._process = subprocess.Popen(
                    [sys.executable, '-P', '-m', 'm2l_jax.evaluation.measuring.worker'],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._messages,
                    env={**os.environ, **_ONE_THREAD, 'PYTHONPATH': os.pathsep.join(sys.path)},
                    process_group=0,  # Ctrl-C is for the main process, which ends this one
                )
            return self._process

    def _describe_end(self) -> str:
        code = self._process.wait()
        self._messages.seek(0)
        lines = self._messages.read().decode(errors='replace').split('\n')
        said = next((f': {line.strip()}' for line in reversed(lines) if line.strip()), '')
        cause = f'was killed by signal {-code}' if code < 0 else f'ended with code {code}'
        return (
            f'a process that computes figures {cause}{said}: if memory ran out, use fewer '
            '--processes, or 0'
        )

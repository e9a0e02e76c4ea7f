"""JAX's settings and devices, in a process that may belong to others."""

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax

from m2l_jax.interface.errors import InputError, first_line

_FORKED_IN_USE = threading.Event()


@contextlib.contextmanager
def standard_jax() -> Iterator[None]:
    """Overrides the caller's settings of JAX by its defaults in this thread; also a decorator.

    The results depend on types, promotion and random streams.

    Raises:
      InputError: see `check_devices`.
    """
    check_devices()
    with (
        jax.enable_x64(False),
        jax.numpy_dtype_promotion('standard'),
        jax.numpy_rank_promotion('allow'),
        jax.threefry_partitionable(True),
        jax.transfer_guard('allow'),
    ):
        yield


@contextlib.contextmanager
def root_logger_kept() -> Iterator[None]:
    """Keeps absl from adding a handler to the root logger; also a decorator.

    With one, a later `logging.basicConfig` of the caller's would do nothing.
    """
    if logging.root.handlers:
        yield
        return
    logging.root.addHandler(logging.lastResort)
    try:
        yield
    finally:
        logging.root.removeHandler(logging.lastResort)


def check_devices() -> None:
    """Refuses a process in which JAX cannot compute.

    Raises:
      InputError: if JAX has no device of the platform asked for, or the process was forked from one
        that used JAX: it would wait forever for the parent's threads.
    """
    if _FORKED_IN_USE.is_set():
        raise InputError(
            'this process was forked from one that used JAX, whose threads it lacks: start it with '
            "multiprocessing's 'spawn' (DataLoader: multiprocessing_context='spawn')"
        )
    try:
        jax.local_devices()
    except Exception as error:  # an AssertionError without words where JAX comes without CUDA
        asked = jax.config.jax_platforms
        wanted = f' for JAX_PLATFORMS={asked}' if asked else ''
        reason = first_line(error).partition(' (set JAX_PLATFORMS')[0]
        raise InputError(
            f'JAX finds no device{wanted} ({reason}): set JAX_PLATFORMS=cpu, or unset it'
        ) from None


def compute_once(function: Callable[[], Any], sharding: Any = None) -> Any:
    """Runs a function of hundreds of small random draws, such as an initialisation, jitted.

    On a CPU, without optimisation, which takes twice as long as the rest of the compilation.
    """
    options = {'xla_backend_optimization_level': 0} if jax.default_backend() == 'cpu' else {}

    def initialisation() -> Any:  # the name is in the log
        return function()

    return jax.jit(initialisation, out_shardings=sharding, compiler_options=options)()


def _note_fork() -> None:
    # JAX has no public way to ask without starting its devices.
    bridge = sys.modules.get('jax._src.xla_bridge')
    if bridge is not None and bridge.backends_are_initialized():
        _FORKED_IN_USE.set()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_note_fork)

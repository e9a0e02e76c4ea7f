"""Joins the processes of a job, and ends each of them with one line after an error."""

import contextlib
import ctypes
import logging
import os
import re
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import NoReturn

from m2l_jax.interface.command import EXIT_INPUT_ERROR, EXIT_INTERRUPTED, report_error
from m2l_jax.interface.errors import InputError, Interrupted, first_line
from m2l_jax.training.places import Place

_logger = logging.getLogger(__name__)

_HEARTBEAT_SECONDS = 30  # of silence, after which a process is lost
_PARTING_SECONDS = 5  # for the others to meet the same error
_MORE_SECONDS = 60  # of JAX's own time limit, whose error is longer than a line
_QUERY_SECONDS = 5

# In errors of JAX and Orbax when a process does not answer.
_LOST = re.compile(
    'Gloo|NCCL.*(remote|timed? ?out|closed)|oordination service|barrier'
    '|^(UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED)'
)


@contextlib.contextmanager
def joined(place: Place | None, timeout: int) -> Iterator[None]:
    """Joins the job's processes; enter it before JAX's devices are used. Alone, it does nothing.

    An error within the block is reported here and ends the process; JAX would wait for the others.

    Raises:
      InputError: if they could not be joined within `timeout` seconds.
    """
    if place is None:
        yield
        return
    _join(place, timeout)
    try:
        _log_devices()
        yield
    except BaseException as error:
        _leave(error)


def _join(place: Place, timeout: int) -> None:
    """Starts JAX's distributed runtime; exits with one line if processes are missing."""
    import jax

    _reserve_coordinator(place)
    # Its handler would swallow a SIGTERM; training has its own.
    jax.config.update('jax_enable_preemption_service', False)

    def give_up() -> None:
        os.write(2, f'error: {_describe_absence(place, timeout)}\n'.encode())
        os._exit(EXIT_INPUT_ERROR)

    _on_abort(
        f'error: {place} could not join the others (the lines above say why): give each its own '
        '--process_id, and all the same --num_processes\n',
        EXIT_INPUT_ERROR,
    )
    watch = threading.Timer(timeout, give_up)
    watch.daemon = True
    watch.start()
    is_complete = None not in (place.coordinator, place.count, place.index)
    try:
        jax.distributed.initialize(
            place.coordinator,
            place.count,
            place.index,
            local_device_ids=place.local_device,
            cluster_detection_method='deactivate' if is_complete else None,
            initialization_timeout=timeout + _MORE_SECONDS,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f'{place} could not join the others: {first_line(error)}') from None
    finally:
        watch.cancel()
    _on_abort(f'error: {_describe_loss("the lines above say more")}\n', EXIT_INTERRUPTED)


def _reserve_coordinator(place: Place) -> None:
    """Takes process 0's port for this process, as long as it lives.

    JAX's service shares its port with any other process that listens there, so that two processes 0
    would each wait for the rest of the job.
    """
    if place.index != 0 or place.coordinator is None or sys.platform != 'linux':
        return
    port = int(place.coordinator.rpartition(':')[2])
    # In Linux's abstract namespace: gone with the process, and apart in each network namespace.
    reservation = socket.socket(socket.AF_UNIX)
    try:
        reservation.bind(f'\0m2l_jax-coordinator-{port}')
    except OSError:
        raise InputError(
            f'another process of this host is process 0 at port {port}: give each its own '
            '--process_id, and each job its own --coordinator'
        ) from None
    reservation.detach()  # open until the process ends


def _log_devices() -> None:
    """Logs the devices in process 0; the others log only warnings from here on."""
    import jax

    from m2l_jax.interface.devices import check_devices

    check_devices()
    if jax.process_index():
        logging.getLogger('m2l_jax').setLevel(logging.WARNING)
    _logger.info('%d processes, %d devices', jax.process_count(), jax.device_count())


def _describe_absence(place: Place, timeout: int) -> str:
    """The error of processes that have not found each other in time."""
    where = '' if place.coordinator is None else f' at {place.coordinator}'
    if where and place.index != 0:
        host, _, port = place.coordinator.rpartition(':')
        try:
            socket.create_connection((host.strip('[]'), int(port)), timeout=_QUERY_SECONDS).close()
        except OSError as error:
            return (
                f'{place} could not reach process 0{where} within {timeout} s '
                f'({error.strerror or error}): start it there with the same --coordinator, and '
                'let the port through'
            )
    number = '' if place.count is None else f' {place.count}'
    return (
        f'not all{number} processes came together{where} within {timeout} s: start those that are '
        'missing, or fewer; --join_timeout waits longer'
    )


def _describe_loss(reason: str) -> str:
    return (
        f'another process of this job was lost ({reason}): run the same command on all of them, '
        'and it goes on from what is saved'
    )


def _on_abort(message: str, code: int) -> None:
    """Sets message and exit code for when JAX's C++ client aborts, as it does if a process is lost.

    A Python `missed_heartbeat_callback` fails: jaxlib cannot convert its argument.
    """

    def end(number: int) -> None:
        os.write(2, message.encode())
        os._exit(code)

    prototype = ctypes.CFUNCTYPE(None, ctypes.c_int)
    handler = prototype(end)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(handler))  # for C, which may call it at any time
    install = ctypes.CDLL(None).signal
    install.argtypes, install.restype = (ctypes.c_int, prototype), ctypes.c_void_p
    install(signal.SIGABRT, handler)


def _leave(error: BaseException) -> NoReturn:
    """Reports an error and ends the process; the others may go on."""
    import jax

    failed = isinstance(error, jax.errors.JaxRuntimeError | TimeoutError)
    is_lost = failed and _LOST.search(str(error)) is not None
    if is_lost:
        error = Interrupted(f'error: {_describe_loss(first_line(error))}')
    if isinstance(error, InputError | Interrupted):
        code = report_error(error)
    else:
        traceback.print_exception(error)
        code = 1
    _on_abort('', code)
    if not is_lost:
        # The others may meet the same error: they should not report a lost process instead.
        parting = threading.Thread(target=jax.distributed.shutdown, daemon=True)
        parting.start()
        parting.join(_PARTING_SECONDS)
    sys.stdout.flush()
    os._exit(code)

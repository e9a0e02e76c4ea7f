"""The processes of a job: how they find each other, and how each of them leaves."""

import contextlib
import ctypes
import dataclasses
import importlib.util
import logging
import os
import pathlib
import re
import signal
import socket
import sys
import threading
import traceback
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn

from m2l_jax.interface.command import EXIT_INPUT_ERROR, EXIT_INTERRUPTED, tell
from m2l_jax.interface.errors import InputError, Interrupted, first_line

_logger = logging.getLogger(__name__)

_HEARTBEAT_SECONDS = 30  # without a sign of life, until a process counts as lost
_PARTING_SECONDS = 5  # for the others to come to the same end
_MORE_SECONDS = 60  # that JAX would go on trying to join: it does not say so in one line
_QUERY_SECONDS = 5

_ADDRESS = 'JAX_COORDINATOR_ADDRESS'
_MPI_ADDRESS = 'OMPI_MCA_orte_hnp_uri'  # from which JAX knows process 0; newer ones do not set it
_MPI_LOCAL_RANK = 'OMPI_COMM_WORLD_LOCAL_RANK'
_METADATA = 'http://{}/computeMetadata/v1/instance/attributes/agent-worker-number'

# In the errors of JAX and Orbax, where a process does not answer.
_LOST = re.compile(
    'Gloo|NCCL.*(remote|timed? ?out|closed)|oordination service|barrier'
    '|^(UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED)'
)
_AGAIN = 'run the same command on all of them, and it goes on from what is saved'


@dataclasses.dataclass(frozen=True)
class Place:
    """A process's place in its job; None for what JAX finds out by itself.

    Attributes:
      coordinator: HOST:PORT at which process 0 listens.
      count: processes in all.
      index: of this one.
      local_device: the only one of this host's GPUs that this process uses.
      is_told: whether the place was given by flags, so that JAX has nothing to find out.
    """

    coordinator: str | None = None
    count: int | None = None
    index: int | None = None
    local_device: int | None = None
    is_told: bool = False

    def __str__(self) -> str:
        name = 'this process' if self.index is None else f'process {self.index}'
        return name if self.count is None else f'{name} of {self.count}'


def find_place(
    coordinator: str | None,
    count: int | None,
    index: int | None,
    environment: Mapping[str, str],
) -> Place | None:
    """This process's place according to the flags, or else to the environment; None if alone.

    Args:
      coordinator, count, index: --coordinator, --num_processes and --process_id, if given.
      environment: variables of the launcher: Slurm, Open MPI, Cloud TPU.

    Raises:
      InputError: if they do not add up.
    """
    if count == 1:
        return None
    coordinator = coordinator or environment.get(_ADDRESS)
    if coordinator is not None:
        _check_address(coordinator)
    if count is None and index is None:
        place = _launched_place(coordinator, environment)
        if place is not None or coordinator is None:
            return place
    flags = {'--coordinator': coordinator, '--num_processes': count, '--process_id': index}
    missing = [flag for flag, value in flags.items() if value is None]
    if missing:
        raise InputError(
            f'{" and ".join(missing)} missing: several processes that are to train together each '
            f'need {", ".join(flags)}'
        )
    if count < 1:
        raise InputError(f'--num_processes={count} must be at least 1')
    if not 0 <= index < count:
        raise InputError(
            f'--process_id={index} must be from 0 to {count - 1}, for --num_processes={count}'
        )
    return Place(coordinator, count, index, is_told=True)


def find_share(environment: Mapping[str, str]) -> Place | None:
    """This process's number among those that its launcher has started, for work without a word.

    Nothing is joined for it, so that no process ends with another.

    Args:
      environment: variables of the launcher: Open MPI, Slurm, MPICH and its kin, Cloud TPU.

    Returns:
      A place with `index` and `count`, and `local_device` where the launcher numbers the processes
      of a host; None if it is alone, or the variables do not tell.
    """
    for count, rank, local_rank in (
        (environment.get('OMPI_COMM_WORLD_SIZE'), 'OMPI_COMM_WORLD_RANK', _MPI_LOCAL_RANK),
        (_slurm_tasks(environment), 'SLURM_PROCID', 'SLURM_LOCALID'),
        (environment.get('PMI_SIZE'), 'PMI_RANK', 'MPI_LOCALRANKID'),
    ):
        if int(count or 1) > 1 and rank in environment:
            local = environment.get(local_rank)
            device = None if local is None else int(local)
            return Place(None, int(count), int(environment[rank]), device)
    hosts, slices = _tpu_hosts(environment), _tpu_slices(environment)
    if not hosts or len(hosts) * slices == 1 or 'TPU_WORKER_ID' not in environment:
        return None
    first = int(environment.get('MEGASCALE_SLICE_ID') or 0) * len(hosts)
    return Place(None, len(hosts) * slices, first + int(environment['TPU_WORKER_ID']))


def take_own_devices(place: Place, environment: Mapping[str, str]) -> None:
    """Leaves this host's other GPUs to its other processes, as JAX does where they are joined.

    To be called before any use of JAX's devices.
    """
    import jax

    chosen = environment.get('JAX_LOCAL_DEVICE_IDS', place.local_device)
    visible = environment.get('CUDA_VISIBLE_DEVICES')
    if chosen is None or (visible and ',' not in visible):  # the launcher has chosen one already
        return
    jax.config.update('jax_cuda_visible_devices', str(chosen))
    jax.config.update('jax_rocm_visible_devices', str(chosen))


def _check_address(coordinator: str) -> None:
    host, _, port = coordinator.rpartition(':')
    if not (host and port.isdigit() and 0 < int(port) < 1 << 16):
        raise InputError(
            f'--coordinator={coordinator} must be HOST:PORT: the host of process 0, and a port '
            'that is free there'
        )


def _launched_place(coordinator: str | None, environment: Mapping[str, str]) -> Place | None:
    """The place that the launcher gave to this process, if it started several."""
    count = int(environment.get('OMPI_COMM_WORLD_SIZE', 1))
    if count > 1:
        index = int(environment['OMPI_COMM_WORLD_RANK'])
        if _MPI_ADDRESS in environment:
            return Place(coordinator, count, index)
        if coordinator is None:
            raise InputError(
                'this Open MPI does not tell the processes where process 0 is: pass '
                '--coordinator=HOST:PORT, the host of rank 0 and a port that is free there'
            )
        # What JAX does under an Open MPI that it knows: a GPU for each process.
        chosen = 'JAX_LOCAL_DEVICE_IDS' in environment
        local = None if chosen else int(environment[_MPI_LOCAL_RANK])
        return Place(coordinator, count, index, local)
    tasks = _slurm_tasks(environment)
    if tasks > 1:
        return Place(coordinator, tasks, int(environment['SLURM_PROCID']))
    if int(environment.get('PMI_SIZE', 1)) > 1:
        raise InputError(
            'this MPI does not tell JAX how its processes find each other: pass --coordinator, '
            '--num_processes and --process_id, or start them with Open MPI or srun'
        )
    return Place(coordinator) if _is_tpu_worker(environment) else None


def _is_tpu_worker(environment: Mapping[str, str]) -> bool:
    """Whether this is one of several hosts of a Cloud TPU, or a Cloud TPU VM, which may be."""
    hosts = _tpu_hosts(environment)
    if hosts is not None:
        return len(hosts) * _tpu_slices(environment) > 1
    devices = pathlib.Path('/dev')
    has_chips = any(devices.glob('accel*')) or any(devices.glob('vfio/[0-9]*'))
    if not has_chips or importlib.util.find_spec('libtpu') is None:
        return False
    server = environment.get('GCE_METADATA_IP', 'metadata.google.internal')
    query = urllib.request.Request(_METADATA.format(server), headers={'Metadata-Flavor': 'Google'})
    try:
        with urllib.request.urlopen(query, timeout=_QUERY_SECONDS):
            return True
    except OSError:
        return False


def _slurm_tasks(environment: Mapping[str, str]) -> int:
    """Processes of the Slurm step that this process is of; 1 outside of one, in a batch script."""
    if 'SLURM_STEP_NODELIST' not in environment:
        return 1
    return int(environment.get('SLURM_STEP_NUM_TASKS', environment.get('SLURM_NTASKS', 1)))


def _tpu_hosts(environment: Mapping[str, str]) -> list[str] | None:
    """The hosts of this host's slice of TPUs, as Kubernetes tells; [] if TPUs are not used."""
    if 'tpu' not in (environment.get('JAX_PLATFORMS') or 'tpu'):
        return []
    names = ('TPU_PROCESS_ADDRESSES', 'TPU_WORKER_HOSTNAMES')
    return next((environment[name].split(',') for name in names if name in environment), None)


def _tpu_slices(environment: Mapping[str, str]) -> int:
    return int(environment.get('MEGASCALE_NUM_SLICES') or 1)


@contextlib.contextmanager
def joined(place: Place | None, timeout: int) -> Iterator[None]:
    """Joins the job's other processes, and leaves them at an error without waiting for them.

    To be entered before any use of JAX's devices. Alone, it does nothing. An error within the block
    is told here, for the process ends here: JAX's own way out waits for all processes.

    Args:
      place: of this process.
      timeout: seconds to wait for the others.

    Raises:
      InputError: if they could not be joined.
    """
    if place is None:
        yield
        return
    _join(place, timeout)
    try:
        _count_devices()
        yield
    except BaseException as error:
        _leave(error)


def _join(place: Place, timeout: int) -> None:
    """Starts JAX's distributed runtime, and ends the process where it does not come about."""
    import jax

    # Its handler would swallow a SIGTERM; training has its own.
    jax.config.update('jax_enable_preemption_service', False)
    refused = f'{place} could not join the others (the lines above say why): give each its own '
    refused += '--process_id, and all the same --num_processes'
    _on_abort(lambda: _end(refused, EXIT_INPUT_ERROR))
    watch = threading.Timer(
        timeout, lambda: _end(_describe_absence(place, timeout), EXIT_INPUT_ERROR)
    )
    watch.daemon = True
    watch.start()
    try:
        jax.distributed.initialize(
            place.coordinator,
            place.count,
            place.index,
            local_device_ids=place.local_device,
            cluster_detection_method='deactivate' if place.is_told else None,
            initialization_timeout=timeout + _MORE_SECONDS,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f'{place} could not join the others: {first_line(error)}') from None
    finally:
        watch.cancel()
    _on_abort(lambda: _end(_describe_loss('the lines above say more'), EXIT_INTERRUPTED))


def _count_devices() -> None:
    """Logs processes and devices, in process 0; the others leave to it what is no warning.

    Raises:
      InputError: if JAX cannot use this process's devices.
    """
    import jax

    try:
        processes, devices = jax.process_count(), jax.device_count()
    except RuntimeError as error:
        raise InputError(
            f"this process's devices cannot be used ({first_line(error)}): "
            'see whether another program uses them'
        ) from None
    if jax.process_index():
        logging.getLogger('m2l_jax').setLevel(logging.WARNING)
    plural = '' if processes == 1 else 'es'
    _logger.info('%d process%s, %d devices', processes, plural, devices)


def _describe_absence(place: Place, timeout: int) -> str:
    """What is known of why the processes have not found each other in time."""
    where = '' if place.coordinator is None else f' at {place.coordinator}'
    if where and place.index != 0:
        host, _, port = place.coordinator.rpartition(':')
        try:
            socket.create_connection((host.strip('[]'), int(port)), timeout=_QUERY_SECONDS).close()
        except OSError as error:
            reason = error.strerror or error
            return (
                f'{place} could not reach process 0{where} within {timeout} s ({reason}): start it '
                'there with the same --coordinator, and let the port through'
            )
    number = '' if place.count is None else f' {place.count}'
    return (
        f'not all{number} processes came together{where} within {timeout} s: start those that are '
        'missing, or fewer; --join_timeout waits longer'
    )


def _describe_loss(reason: str) -> str:
    return f'another process of this job was lost ({reason}): {_AGAIN}'


def _leave(error: BaseException) -> NoReturn:
    """Tells of an error and ends the process, whatever the others do."""
    import jax

    is_lost = isinstance(error, jax.errors.JaxRuntimeError | TimeoutError) and (
        _LOST.search(str(error)) is not None
    )
    if is_lost:
        error = Interrupted(f'error: {_describe_loss(first_line(error))}')
    if isinstance(error, InputError | Interrupted):
        code = tell(error)
    else:
        traceback.print_exception(error)
        code = 1
    _on_abort(lambda: os._exit(code))
    if not is_lost:
        # They may have met the same, and would only tell of a loss, of process 0 above all.
        parting = threading.Thread(target=jax.distributed.shutdown, daemon=True)
        parting.start()
        parting.join(_PARTING_SECONDS)
    sys.stdout.flush()
    os._exit(code)


def _end(message: str, code: int) -> NoReturn:
    """Ends the process with one line, from any thread."""
    os.write(2, f'error: {message}\n'.encode())
    os._exit(code)


def _on_abort(end: Callable[[], None]) -> None:
    """Has a function called where JAX's client, which is C++, aborts the process.

    Python's own signal handlers run later, in the main thread: too late.
    """
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_int)
    handler = prototype(lambda number: end())
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(handler))  # for C, which may call it at any time
    install = ctypes.CDLL(None).signal
    install.argtypes, install.restype = (ctypes.c_int, prototype), ctypes.c_void_p
    install(signal.SIGABRT, handler)

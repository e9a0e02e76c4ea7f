"""A process's place in its job: by its flags, or by what launched it."""

import dataclasses
import importlib.util
import pathlib
import urllib.request
from collections.abc import Mapping

from m2l_jax.interface.errors import InputError

_QUERY_SECONDS = 5

_METADATA = 'http://{}/computeMetadata/v1/instance/attributes/agent-worker-number'


@dataclasses.dataclass(frozen=True)
class Place:
    """A process's place in its job; JAX detects what is None.

    Attributes:
      coordinator: HOST:PORT at which process 0 listens.
      count: number of processes.
      index: of this one.
      local_device: index of the host's GPU that this process uses.
    """

    coordinator: str | None = None
    count: int | None = None
    index: int | None = None
    local_device: int | None = None

    def __str__(self) -> str:
        name = 'this process' if self.index is None else f'process {self.index}'
        return name if self.count is None else f'{name} of {self.count}'


def find_place(
    coordinator: str | None,
    count: int | None,
    index: int | None,
    environment: Mapping[str, str],
) -> Place | None:
    """This process's place, by its flags or its launcher's variables; None if it is alone.

    Raises:
      InputError: if flags contradict each other or are missing.
    """
    if count == 1:
        return None
    coordinator = coordinator or environment.get('JAX_COORDINATOR_ADDRESS')
    _check_address(coordinator)
    if count is None and index is None:
        place = find_share(environment) or (Place() if _is_cloud_tpu(environment) else None)
        if place is not None and coordinator is None and not _names_coordinator(environment):
            raise InputError(
                'this launcher does not say where process 0 is: pass --coordinator=HOST:PORT, the '
                'host of process 0 and a port that is free there'
            )
        if place is not None or coordinator is None:
            return place and dataclasses.replace(place, coordinator=coordinator)
    flags = {'--coordinator': coordinator, '--num_processes': count, '--process_id': index}
    missing = [flag for flag, value in flags.items() if value is None]
    if missing:
        raise InputError(
            f'{" and ".join(missing)} missing: processes that train together each need '
            f'{", ".join(flags)}'
        )
    if count < 1:
        raise InputError(f'--num_processes={count} must be at least 1')
    if not 0 <= index < count:
        raise InputError(
            f'--process_id={index} must be from 0 to {count - 1}, for --num_processes={count}'
        )
    return Place(coordinator, count, index)


def _check_address(coordinator: str | None) -> None:
    host, _, port = (coordinator or 'none:1').rpartition(':')
    if not (host and port.isdigit() and 0 < int(port) < 1 << 16):
        raise InputError(
            f'--coordinator={coordinator} must be HOST:PORT: the host of process 0, and a port '
            'that is free there'
        )


def find_share(environment: Mapping[str, str]) -> Place | None:
    """This process's place by its launcher: Open MPI, Slurm, MPICH and its kin, Cloud TPU.

    Returns:
      A place without `coordinator`; None if the process is alone or the variables are missing.
    """
    tasks = environment.get('SLURM_STEP_NUM_TASKS', environment.get('SLURM_NTASKS'))
    if 'SLURM_STEP_NODELIST' not in environment:  # a batch script's own shell
        tasks = None
    mpi = 'OMPI_COMM_WORLD_'
    for count, rank, local_rank in (
        (environment.get(mpi + 'SIZE'), mpi + 'RANK', mpi + 'LOCAL_RANK'),
        (tasks, 'SLURM_PROCID', 'SLURM_LOCALID'),
        (environment.get('PMI_SIZE'), 'PMI_RANK', 'MPI_LOCALRANKID'),
    ):
        if int(count or 1) > 1 and rank in environment:
            # JAX heeds a choice of devices in its own variable.
            local = None if 'JAX_LOCAL_DEVICE_IDS' in environment else environment.get(local_rank)
            device = None if local is None else int(local)
            return Place(None, int(count), int(environment[rank]), device)
    hosts, slices = _tpu_hosts(environment), int(environment.get('MEGASCALE_NUM_SLICES') or 1)
    if not hosts or len(hosts) * slices == 1 or 'TPU_WORKER_ID' not in environment:
        return None
    first = int(environment.get('MEGASCALE_SLICE_ID') or 0) * len(hosts)
    return Place(None, len(hosts) * slices, first + int(environment['TPU_WORKER_ID']))


def take_own_devices(place: Place, environment: Mapping[str, str]) -> None:
    """Leaves the host's other GPUs to its other processes; call it before devices are used."""
    import jax

    chosen = environment.get('JAX_LOCAL_DEVICE_IDS', place.local_device)
    visible = environment.get('CUDA_VISIBLE_DEVICES')
    if chosen is None or (visible and ',' not in visible):  # the launcher has chosen one already
        return
    jax.config.update('jax_cuda_visible_devices', str(chosen))
    jax.config.update('jax_rocm_visible_devices', str(chosen))


def _names_coordinator(environment: Mapping[str, str]) -> bool:
    """True if JAX finds process 0: under Slurm, Cloud TPU and Open MPI before version 5."""
    by_mpi = int(environment.get('OMPI_COMM_WORLD_SIZE') or environment.get('PMI_SIZE') or 1) > 1
    return not by_mpi or bool({'OMPI_MCA_orte_hnp_uri', 'SLURM_STEP_NODELIST'} & set(environment))


def _is_cloud_tpu(environment: Mapping[str, str]) -> bool:
    """True on one of several hosts of Cloud TPUs, and on a Cloud TPU VM, even a single one.

    JAX's own query fails where there is no metadata server.
    """
    hosts = _tpu_hosts(environment)
    if hosts is not None:
        return len(hosts) * int(environment.get('MEGASCALE_NUM_SLICES') or 1) > 1
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


def _tpu_hosts(environment: Mapping[str, str]) -> list[str] | None:
    """The hosts of this TPU slice, by Kubernetes; None if unknown, [] if TPUs are not used."""
    if 'tpu' not in (environment.get('JAX_PLATFORMS') or 'tpu'):
        return []
    names = ('TPU_PROCESS_ADDRESSES', 'TPU_WORKER_HOSTNAMES')
    return next((environment[name].split(',') for name in names if name in environment), None)

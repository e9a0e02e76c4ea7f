import pytest

from m2l_jax.interface.errors import InputError
from m2l_jax.training import processes
from m2l_jax.training.places import Place, find_place, find_share, take_own_devices

SLURM = {'SLURM_STEP_NODELIST': 'n[1-4]', 'SLURM_NTASKS': '8', 'SLURM_PROCID': '3'}
MPI = {
    'OMPI_COMM_WORLD_SIZE': '8',
    'OMPI_COMM_WORLD_RANK': '5',
    'OMPI_COMM_WORLD_LOCAL_RANK': '1',
}
TPU = {'TPU_WORKER_HOSTNAMES': 't0,t1', 'TPU_WORKER_ID': '1'}
ADDRESS = {'JAX_COORDINATOR_ADDRESS': 'n1:1234'}


@pytest.mark.parametrize(
    ('flags', 'environment', 'place'),
    [
        ((None, None, None), {}, None),
        (('n1:1234', 2, 1), {}, Place('n1:1234', 2, 1)),
        (('n1:1234', 2, 0), SLURM, Place('n1:1234', 2, 0)),
        ((None, 2, 1), ADDRESS, Place('n1:1234', 2, 1)),
        # One process only, whatever the launcher says.
        ((None, 1, None), SLURM, None),
        ((None, None, None), SLURM, Place(None, 8, 3)),
        ((None, None, None), {**SLURM, 'SLURM_STEP_NUM_TASKS': '1'}, None),
        # A batch script's own shell, which is not a step.
        ((None, None, None), {'SLURM_NTASKS': '8', 'SLURM_PROCID': '0'}, None),
        (('n1:1234', None, None), SLURM, Place('n1:1234', 8, 3)),
        (
            (None, None, None),
            {**MPI, 'OMPI_MCA_orte_hnp_uri': '1.0;tcp://n1:9'},
            Place(None, 8, 5, 1),
        ),
        (('n1:1234', None, None), MPI, Place('n1:1234', 8, 5, local_device=1)),
        ((None, None, None), {**MPI, **ADDRESS}, Place('n1:1234', 8, 5, local_device=1)),
        (('n1:1', None, None), {**MPI, 'JAX_LOCAL_DEVICE_IDS': '0'}, Place('n1:1', 8, 5)),
        ((None, None, None), {'OMPI_COMM_WORLD_SIZE': '1'}, None),
        ((None, None, None), {'TPU_WORKER_HOSTNAMES': 't0,t1'}, Place()),
        ((None, None, None), TPU, Place(None, 2, 1)),
        (('n1:1234', None, None), {'PMI_SIZE': '4', 'PMI_RANK': '2'}, Place('n1:1234', 4, 2)),
        ((None, None, None), {'TPU_WORKER_HOSTNAMES': 't0'}, None),
        ((None, None, None), {'TPU_WORKER_HOSTNAMES': 't0', 'MEGASCALE_NUM_SLICES': '2'}, Place()),
        ((None, None, None), {'TPU_WORKER_HOSTNAMES': 't0,t1', 'JAX_PLATFORMS': 'cpu'}, None),
    ],
)
def test_the_place_is_that_of_the_flags_or_else_of_the_launcher(flags, environment, place):
    assert find_place(*flags, environment) == place


@pytest.mark.parametrize(
    ('flags', 'environment', 'message'),
    [
        ((None, 2, 1), {}, r'^--coordinator missing: .* each need --coordinator, --num_processes'),
        (('n1:1234', None, None), {}, r'^--num_processes and --process_id missing'),
        ((None, None, None), ADDRESS, r'^--num_processes and --process_id missing'),
        (('n1:1234', 2, None), {}, r'^--process_id missing'),
        (('n1:1234', 2, 2), {}, r'^--process_id=2 must be from 0 to 1, for --num_processes=2'),
        (('n1:1234', 2, -1), {}, r'^--process_id=-1 must be from 0 to 1'),
        (('n1:1234', 0, 0), {}, r'^--num_processes=0 must be at least 1'),
        (('n1', 2, 0), {}, r'^--coordinator=n1 must be HOST:PORT'),
        ((':1234', 2, 0), {}, r'^--coordinator=:1234 must be HOST:PORT'),
        (('n1:99999', 2, 0), {}, r'^--coordinator=n1:99999 must be HOST:PORT'),
        ((None, None, None), {'PMI_SIZE': '4', 'PMI_RANK': '1'}, r'^this launcher does not say'),
        ((None, None, None), MPI, r'^this launcher does not say .* pass --coordinator=HOST:PORT'),
    ],
)
def test_flags_that_do_not_add_up_are_told(flags, environment, message):
    with pytest.raises(InputError, match=message):
        find_place(*flags, environment)


def test_alone_no_process_waits_for_others():
    with pytest.raises(KeyError), processes.joined(None, 1):
        raise KeyError


@pytest.mark.parametrize(
    ('environment', 'place'),
    [
        ({}, None),
        (SLURM, Place(None, 8, 3)),
        ({**SLURM, 'SLURM_LOCALID': '1'}, Place(None, 8, 3, local_device=1)),
        ({**SLURM, 'SLURM_STEP_NUM_TASKS': '1'}, None),
        ({'SLURM_NTASKS': '8', 'SLURM_PROCID': '0'}, None),
        (MPI, Place(None, 8, 5, local_device=1)),
        ({**SLURM, **MPI}, Place(None, 8, 5, local_device=1)),
        ({'PMI_SIZE': '4', 'PMI_RANK': '2'}, Place(None, 4, 2)),
        ({'PMI_SIZE': '1', 'PMI_RANK': '0'}, None),
        (TPU, Place(None, 2, 1)),
        ({**TPU, 'MEGASCALE_NUM_SLICES': '3', 'MEGASCALE_SLICE_ID': '2'}, Place(None, 6, 5)),
        ({**TPU, 'JAX_PLATFORMS': 'cpu'}, None),
        ({'TPU_WORKER_HOSTNAMES': 't0', 'TPU_WORKER_ID': '0'}, None),
        ({'TPU_WORKER_HOSTNAMES': 't0,t1'}, None),
    ],
)
def test_a_share_is_told_by_the_launchers_variables_alone(environment, place):
    assert find_share(environment) == place


@pytest.mark.parametrize(
    ('environment', 'local', 'device'),
    [
        ({}, 3, '3'),
        ({}, None, None),
        ({'CUDA_VISIBLE_DEVICES': '4,5,6,7'}, 3, '3'),
        ({'CUDA_VISIBLE_DEVICES': '7'}, 3, None),
        ({'JAX_LOCAL_DEVICE_IDS': '0,1'}, 3, '0,1'),
    ],
)
def test_processes_of_a_host_take_a_gpu_each(environment, local, device, monkeypatch):
    updates = {}
    monkeypatch.setattr('jax.config.update', updates.__setitem__)
    take_own_devices(Place(None, 8, 3, local), environment)
    names = ('jax_cuda_visible_devices', 'jax_rocm_visible_devices')
    assert updates == ({} if device is None else dict.fromkeys(names, device))

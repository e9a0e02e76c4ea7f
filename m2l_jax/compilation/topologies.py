"""Chips to compile for without having one: their rates, and the names of TPU slices and GPUs."""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Mapping
from typing import Any

import jax

from m2l_jax.interface.errors import InputError, first_line

_GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip, from its maker's documentation (cloud.google.com/tpu/docs; NVIDIA's datasheets).

    Attributes:
      memory: bytes that a program can have; of a GPU's, JAX takes 75 % unless told otherwise.
      flops: peak rate of bfloat16 multiplications and additions, 1/s.
      bandwidth: of HBM, bytes/s.
      interconnect: of all its links to other chips together, one way, bytes/s.
      axes: of the torus that its slices are cut from; 0 for a GPU.
      named_units: of a chip in a slice's name, which counts cores or chips (`v4-8` has 4 chips).
      options: of the compiler's description of the chips.
      platform: JAX's name of it.
    """

    memory: int
    flops: float
    bandwidth: float
    interconnect: float
    axes: int = 0
    named_units: int = 1
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    platform: str = 'tpu'


def _gpu(
    name: str,
    *,
    memory: int,
    flops: float,
    bandwidth: float,
    interconnect: float,
    capability: int,
    cores: int,
    units: int,
    clock: float,
    shared: int,
    cache: int,
) -> Chip:
    """A GPU, with the description that XLA needs to compile for it (`GpuTargetConfigProto`).

    Args:
      name: as its driver calls it.
      memory: all of it, bytes.
      flops, bandwidth, interconnect: as in `Chip`.
      capability: the major CUDA compute capability.
      cores: streaming multiprocessors.
      units: float32 units of a core.
      clock: GHz.
      shared: memory of a core that its threads share, bytes.
      cache: second level, bytes.
    """
    extension = 'ACCELERATED_FEATURES' if capability >= 9 else 'NONE'
    target = f"""
        gpu_device_info {{
          threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
          block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
          thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
          registers_per_core_limit: 65536 registers_per_block_limit: 65536
          shared_memory_per_block: 49152 shared_memory_per_core: {shared}
          shared_memory_per_block_optin: {shared - 1024}
          core_count: {cores} fpus_per_core: {units} clock_rate_ghz: {clock}
          memory_bandwidth: {bandwidth:.0f} l2_cache_size: {cache} device_memory_size: {memory}
          cuda_compute_capability {{ major: {capability} feature_extension: {extension} }}
          device_vendor: "NVIDIA Corporation" name: "{name}" device_address_bits: 64
          runtime_version: "13.0.0" driver_version: "13.0.0" dnn_version: "9.12.0"
          compile_time_toolkit_version: "13.0.0"
        }}
        platform_name: "CUDA"
        dnn_version_info {{ major: 9 minor: 12 patch: 0 }}
        device_description_str: "{name}"
    """
    usable = int(0.75 * memory)
    options = {'target_config': target}
    return Chip(usable, flops, bandwidth, interconnect, options=options, platform='cuda')


# To JAX, the two cores of a v4 are one device.
_V4 = {'chip_config_name': 'megacore', 'chips_per_host_bounds': (2, 2, 1), 'num_slices': 1}
_HOPPER = {
    'flops': 989e12,
    'interconnect': 450e9,
    'capability': 9,
    'cores': 132,
    'units': 128,
    'clock': 1.98,
    'shared': 228 << 10,
    'cache': 50 << 20,
}
CHIPS = {
    'v4': Chip(32 * _GIB, 275e12, 1200e9, 300e9, 3, 2, _V4),
    'v5e': Chip(16 * _GIB, 197e12, 819e9, 200e9, 2, 1),
    'v5p': Chip(95 * _GIB, 459e12, 2765e9, 600e9, 3, 2),
    'v6e': Chip(32 * _GIB, 918e12, 1640e9, 400e9, 2, 1),
    'a100': _gpu(
        'NVIDIA A100-SXM4-80GB',
        memory=85_100_068_864,
        flops=312e12,
        bandwidth=2039e9,
        interconnect=300e9,
        capability=8,
        cores=108,
        units=64,
        clock=1.41,
        shared=164 << 10,
        cache=40 << 20,
    ),
    'h100': _gpu(
        'NVIDIA H100 80GB HBM3',
        memory=84_942_979_072,
        bandwidth=3352e9,
        **_HOPPER,
    ),
    'h200': _gpu(
        'NVIDIA H200 141GB HBM3e',
        memory=151_397_597_184,
        bandwidth=4800e9,
        **_HOPPER,
    ),
}

# By axes and chips: the bounds of a slice that is asked for by its name.
_BOUNDS = {
    axes: {math.prod(map(int, bounds.split('x'))): bounds for bounds in all_bounds.split()}
    for axes, all_bounds in (
        (2, '2x2 2x4 4x4 4x8 8x8 8x16 16x16'),
        (3, '2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x8'),
    )
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips of one kind, as devices that programs can be compiled for but not run on."""

    name: str  # e.g. v4:2x2x4 or h100:1x8, machines and GPUs of each
    chip: Chip
    devices: list[jax.Device]

    @property
    def hosts(self) -> int:
        """Machines, each with a process of its own."""
        return len({device.process_index for device in self.devices})


def open_topology(name: str) -> Topology:
    """The chips of a name.

    Args:
      name: a TPU slice by its bounds, `v4:2x2x4`, or as it is sold, `v4-32`; or GPUs, `h100`,
        `h100:8` (on one machine), `h100:2x8` (on two).

    Raises:
      InputError: for a name that is not known, or if the chips' compiler is not installed.
    """
    kind, bounds = _parse(name)
    chip, full_name = CHIPS[kind], f'{kind}:{bounds}'
    _check_compiler(chip.platform)
    if chip.platform == 'tpu':
        _prepare_for_tpus()
        options = {'topology_name': full_name, **chip.options}
    else:
        options = {'topology_name': '', 'topology': f'1x{bounds}', **chip.options}
    from jax.experimental import topologies

    try:
        description = topologies.get_topology_desc(platform=chip.platform, **options)
    except jax.errors.JaxRuntimeError as error:
        reason = first_line(error).partition(': ')[2]
        raise InputError(
            f'--topology={name} is refused by the compiler ({reason}): {_known()}'
        ) from None
    return Topology(full_name, chip, list(description.devices))


def count_chips(name: str, generation: str) -> int:
    """Chips of a slice of a generation, as Google Cloud names it, e.g. `v4-32`; 0 if it is none."""
    found, _, number = name.replace('v5litepod', 'v5e').partition('-')
    if found != generation or not number.isdecimal():
        return 0
    chips, odd = divmod(int(number), CHIPS[generation].named_units)
    return 0 if odd else chips


def _parse(name: str) -> tuple[str, str]:
    """The kind of the chips and their bounds: of a slice's torus, or machines and GPUs of each."""
    kind, separator, rest = name.partition(':' if ':' in name else '-')
    kind = {'v5litepod': 'v5e'}.get(kind, kind)
    chip = CHIPS.get(kind)
    if chip and chip.platform == 'cuda':
        if match := re.fullmatch(r'(?::(?:([1-9]\d{0,3})x)?([1-9]\d?))?', name[len(kind) :]):
            return kind, f'{match[1] or 1}x{match[2] or 1}'
    elif chip and separator == ':' and re.fullmatch(r'\d+(x\d+)' + f'{{{chip.axes - 1}}}', rest):
        return kind, rest
    elif chip and (bounds := _BOUNDS[chip.axes].get(count_chips(name, kind))):
        return kind, bounds
    raise InputError(f'--topology={name} is not known: {_known()}')


def _known() -> str:
    slices, gpus = [], []
    for kind, chip in CHIPS.items():
        if chip.platform == 'cuda':
            gpus.append(kind)
            continue
        bounds = _BOUNDS[chip.axes]
        smallest, largest = (size * chip.named_units for size in (min(bounds), max(bounds)))
        slices.append(f'{kind}-{smallest} to {kind}-{largest}')
    return (
        f'use one of {", ".join(slices)}, or bounds, e.g. v4:2x2x4 or v5e:4x4; '
        f'or GPUs, {", ".join(gpus)}, h100:8, h100:2x8'
    )


def _check_compiler(platform: str) -> None:
    module, chip, extra = {
        'tpu': ('libtpu', 'TPU', 'tpu'),
        'cuda': ('jax_cuda13_plugin', 'GPU', 'cuda'),
    }[platform]
    if importlib.util.find_spec(module) is None:
        raise InputError(f"the {chip}'s compiler is not installed: pip install -e '.[{extra}]'")


def _prepare_for_tpus() -> None:
    """Lets the compiler start on a machine without a TPU, beside another, and without noise."""
    for name, value in (
        ('TPU_SKIP_MDS_QUERY', '1'),
        ('TPU_ACCELERATOR_TYPE', 'v4-8'),
        ('TPU_WORKER_HOSTNAMES', 'localhost'),
        ('TPU_WORKER_ID', '0'),
        ('ALLOW_MULTIPLE_LIBTPU_LOAD', '1'),
    ):
        os.environ.setdefault(name, value)

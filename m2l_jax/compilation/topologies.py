"""Chips to compile for without having one: their rates, and the names of TPU slices."""

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
    """One chip, from its maker's documentation (TPUs: cloud.google.com/tpu/docs).

    Attributes:
      memory: HBM, bytes.
      flops: peak rate of bfloat16 multiplications and additions, 1/s.
      bandwidth: of HBM, bytes/s.
      interconnect: of all its links to other chips together, bytes/s.
      axes: of the torus that its slices are cut from.
      named_units: of a chip in a slice's name, which counts cores or chips (`v4-8` has 4 chips).
      options: of the compiler's description of a slice.
      platform: JAX's name of it.
    """

    memory: int
    flops: float
    bandwidth: float
    interconnect: float
    axes: int
    named_units: int
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    platform: str = 'tpu'


# To JAX, the two cores of a v4 are one device.
_V4 = {'chip_config_name': 'megacore', 'chips_per_host_bounds': (2, 2, 1), 'num_slices': 1}
CHIPS = {
    'v4': Chip(32 * _GIB, 275e12, 1200e9, 300e9, 3, 2, _V4),
    'v5e': Chip(16 * _GIB, 197e12, 819e9, 200e9, 2, 1),
    'v5p': Chip(95 * _GIB, 459e12, 2765e9, 600e9, 3, 2),
    'v6e': Chip(32 * _GIB, 918e12, 1640e9, 400e9, 2, 1),
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

    name: str  # e.g. v4:2x2x4
    chip: Chip
    devices: list[jax.Device]

    @property
    def hosts(self) -> int:
        """Machines, each with a process of its own."""
        return len({device.process_index for device in self.devices})


def open_topology(name: str) -> Topology:
    """The chips of a name: a TPU slice by its bounds, `v4:2x2x4`, or as it is sold, `v4-32`.

    Raises:
      InputError: for a name that is not known, or if the TPU's compiler is not installed.
    """
    generation, bounds = _parse(name)
    chip, full_name = CHIPS[generation], f'{generation}:{bounds}'
    if chip.platform == 'tpu':
        _prepare_for_tpus()
    from jax.experimental import topologies

    try:
        description = topologies.get_topology_desc(
            platform=chip.platform, topology_name=full_name, **chip.options
        )
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
    """The generation and bounds of a slice."""
    generation, separator, rest = name.partition(':' if ':' in name else '-')
    generation = {'v5litepod': 'v5e'}.get(generation, generation)
    chip = CHIPS.get(generation)
    if chip and separator == ':' and re.fullmatch(r'\d+(x\d+)' + f'{{{chip.axes - 1}}}', rest):
        return generation, rest
    if chip and (bounds := _BOUNDS[chip.axes].get(count_chips(name, generation))):
        return generation, bounds
    raise InputError(f'--topology={name} is not known: {_known()}')


def _known() -> str:
    slices = []
    for generation, chip in CHIPS.items():
        bounds = _BOUNDS[chip.axes]
        smallest, largest = (size * chip.named_units for size in (min(bounds), max(bounds)))
        slices.append(f'{generation}-{smallest} to {generation}-{largest}')
    return f'use one of {", ".join(slices)}, or bounds, e.g. v4:2x2x4 or v5e:4x4'


def _prepare_for_tpus() -> None:
    """Lets the compiler start on a machine without a TPU, beside another, and without noise."""
    if importlib.util.find_spec('libtpu') is None:
        raise InputError("the TPU's compiler is not installed: pip install -e '.[tpu]'")
    for name, value in (
        ('TPU_SKIP_MDS_QUERY', '1'),
        ('TPU_ACCELERATOR_TYPE', 'v4-8'),
        ('TPU_WORKER_HOSTNAMES', 'localhost'),
        ('TPU_WORKER_ID', '0'),
        ('ALLOW_MULTIPLE_LIBTPU_LOAD', '1'),
    ):
        os.environ.setdefault(name, value)

"""TPUs to compile for without having one: what the slices are called, and what a chip can do."""

import dataclasses
import importlib.util
import os
import re

import jax

from m2l_jax.interface.errors import InputError

_GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Chip:
    """What Google's documentation says of one chip (cloud.google.com/tpu/docs).

    Attributes:
      memory: HBM, bytes.
      flops: peak rate of bfloat16 multiplications and additions, 1/s.
      bandwidth: of HBM, bytes/s.
      interconnect: of all its links to other chips together, bytes/s.
      axes: of the torus that its slices are cut from.
      named_units: of a chip in a slice's name, which tells cores or chips (`v4-8` has 4 chips).
    """

    memory: int
    flops: float
    bandwidth: float
    interconnect: float
    axes: int
    named_units: int


CHIPS = {
    'v4': Chip(32 * _GIB, 275e12, 1200e9, 300e9, 3, 2),
    'v5e': Chip(16 * _GIB, 197e12, 819e9, 200e9, 2, 1),
    'v5p': Chip(95 * _GIB, 459e12, 2765e9, 600e9, 3, 2),
    'v6e': Chip(32 * _GIB, 918e12, 1640e9, 400e9, 2, 1),
}

# Chips of a slice -> its bounds, where a slice is asked for by its name.
_BOUNDS = {
    2: {4: '2x2', 8: '2x4', 16: '4x4', 32: '4x8', 64: '8x8', 128: '8x16', 256: '16x16'},
    3: {
        4: '2x2x1',
        8: '2x2x2',
        16: '2x2x4',
        32: '2x4x4',
        64: '4x4x4',
        128: '4x4x8',
        256: '4x8x8',
        512: '8x8x8',
    },
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice: its chip, and devices that programs can be compiled for but not run on."""

    name: str  # e.g. v4:2x2x4
    chip: Chip
    devices: list[jax.Device]

    @property
    def hosts(self) -> int:
        """Machines, each with a process of its own."""
        return len({device.process_index for device in self.devices})


def open_topology(name: str) -> Topology:
    """The slice of a name: `v4:2x2x4` by its bounds, or `v4-32` as Google Cloud sells it.

    Raises:
      InputError: for a name that is not known, or if the TPU's compiler is not installed.
    """
    generation, bounds = _parse(name)
    if importlib.util.find_spec('libtpu') is None:
        raise InputError("the TPU's compiler is not installed: pip install -e '.[tpu]'")
    _keep_from_searching_for_tpus()
    from jax.experimental import topologies

    options = {}
    if generation == 'v4':  # its two cores are one device to JAX
        options = {
            'chip_config_name': 'megacore',
            'chips_per_host_bounds': (2, 2, 1),
            'num_slices': 1,
        }
    try:
        description = topologies.get_topology_desc(
            platform='tpu', topology_name=f'{generation}:{bounds}', **options
        )
    except jax.errors.JaxRuntimeError as error:
        raise InputError(
            f'--topology={name} is refused by the compiler ({_reason(error)}): {_known()}'
        ) from None
    return Topology(f'{generation}:{bounds}', CHIPS[generation], list(description.devices))


def count_chips(name: str, generation: str) -> int:
    """Chips of a slice of a generation, as Google Cloud names it, e.g. `v4-32`; 0 if it is none."""
    found, _, number = name.replace('v5litepod', 'v5e').partition('-')
    if found != generation or not number.isdecimal():
        return 0
    chips, odd = divmod(int(number), CHIPS[generation].named_units)
    return 0 if odd else chips


def _parse(name: str) -> tuple[str, str]:
    """Generation and bounds."""
    generation, separator, rest = name.partition(':' if ':' in name else '-')
    generation = {'v5litepod': 'v5e'}.get(generation, generation)
    chip = CHIPS.get(generation)
    if chip and separator == ':' and re.fullmatch(r'\d+(x\d+)' + f'{{{chip.axes - 1}}}', rest):
        return generation, rest
    if chip and separator == '-':
        bounds = _BOUNDS[chip.axes].get(count_chips(name, generation))
        if bounds:
            return generation, bounds
    raise InputError(f'--topology={name} is not known: {_known()}')


def _known() -> str:
    slices = []
    for generation, chip in CHIPS.items():
        bounds = _BOUNDS[chip.axes]
        smallest, largest = (size * chip.named_units for size in (min(bounds), max(bounds)))
        slices.append(f'{generation}-{smallest} to {generation}-{largest}')
    return f'use one of {", ".join(slices)}, or bounds, e.g. v4:2x2x4 or v5e:4x4'


def _keep_from_searching_for_tpus() -> None:
    """Lets the compiler start on a machine without a TPU, beside another, and without noise."""
    os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
    os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v4-8')
    os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
    os.environ.setdefault('TPU_WORKER_ID', '0')
    os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')


def _reason(error: Exception) -> str:
    return str(error).partition(': ')[2].splitlines()[0]

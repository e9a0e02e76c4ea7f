"""The result of a benchmark: a table to read, and JSON with date, hardware and versions."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from m2l_jax.interface.paths import write_json
from m2l_jax.interface.tables import format_table

_REPOSITORY = pathlib.Path(__file__).parents[1]
_PACKAGES = (
    'jax',
    'jaxlib',
    'jax-cuda12-plugin',
    'jax-cuda13-plugin',
    'flax',
    'numpy',
    'soundfile',
    'tensorflow-datasets',
    'array-record',
    'torch',
    'triton',
    'music2latent',
)
ENVIRONMENT = (
    'GLIBC_TUNABLES',
    'JAX_DEFAULT_MATMUL_PRECISION',
    'LD_PRELOAD',
    'NVIDIA_TF32_OVERRIDE',
    'OMP_NUM_THREADS',
    'XLA_FLAGS',
    'XLA_PYTHON_CLIENT_MEM_FRACTION',
)


def define_output(default: str | None = None) -> flags.FlagHolder:
    """Defines `--output=FILE`."""
    return flags.DEFINE_string('output', default, 'JSON file to write the figures to.')


def publish(figures: Mapping[str, Any], rows: Sequence[Sequence[Any]], path: str | None) -> None:
    """Prints the table and the machine, and writes the figures."""
    print(format_table(rows))
    for name, value in describe_machine().items():
        print(f'{name}: {value}', flush=True)
    write(figures, path)


def write(figures: Mapping[str, Any], path: str | None) -> None:
    """Writes the machine and the figures to a JSON file, if there is a path."""
    if path:
        write_json(path, {**describe_machine(), **figures})


def describe_machine() -> dict[str, str]:
    """Date, command with relevant environment, hardware and versions.

    Does not import JAX, which would occupy an accelerator.
    """
    installed = {name: _version(name) for name in _PACKAGES}
    versions = [f'{name} {version}' for name, version in installed.items() if version]
    memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30
    environment = [
        f'{name}={shlex.quote(os.environ[name])}' for name in ENVIRONMENT if name in os.environ
    ]
    return {
        'date': datetime.date.today().isoformat(),
        'command': ' '.join([*environment, _command()]),
        'hardware': f'{os.cpu_count()} CPU cores ({_cpu_model()}), {memory:.0f} GiB',
        'versions': f'Python {platform.python_version()}, {", ".join(versions)}',
    }


def _command() -> str:
    """The command line without --output."""
    path = pathlib.Path(sys.argv[0])
    if path.is_relative_to(_REPOSITORY):
        path = path.relative_to(_REPOSITORY)
    given = [argument for argument in sys.argv[1:] if not argument.startswith('--output=')]
    return shlex.join(['python', '-m', '.'.join(path.with_suffix('').parts), *given])


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    information = pathlib.Path('/proc/cpuinfo')
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return f'{names[0]}, {platform.machine()}' if names else platform.machine()

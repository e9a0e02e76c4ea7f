"""When and on what a figure was measured, to be kept beside it."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import shlex
import sys

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


def describe() -> dict[str, str]:
    """Date, command, what of the environment counts, hardware and versions.

    Without importing JAX, which would take an accelerator.
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
    """What was run, but for where its results go."""
    given = [argument for argument in sys.argv[1:] if not argument.startswith('--output=')]
    return shlex.join(['python', '-m', f'benchmarks.{pathlib.Path(sys.argv[0]).stem}', *given])


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    """The model's name, as far as the system tells it, and the architecture."""
    information = pathlib.Path('/proc/cpuinfo')
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return f'{names[0]}, {platform.machine()}' if names else platform.machine()

"""When and on what a figure was measured, to be kept beside it."""

import datetime
import importlib.metadata
import os
import pathlib
import platform

_PACKAGES = (
    'jax',
    'flax',
    'numpy',
    'soundfile',
    'tensorflow-datasets',
    'array-record',
    'torch',
    'music2latent',
)


def describe() -> dict[str, str]:
    """Date, hardware and versions, without importing JAX, which would take an accelerator."""
    installed = {name: _version(name) for name in _PACKAGES}
    versions = [f'{name} {version}' for name, version in installed.items() if version]
    memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30
    return {
        'date': datetime.date.today().isoformat(),
        'hardware': f'{os.cpu_count()} CPU cores ({_cpu_model()}), {memory:.0f} GiB',
        'versions': f'Python {platform.python_version()}, {", ".join(versions)}',
    }


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

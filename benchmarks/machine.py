"""When and on what a figure was measured, to be kept beside it."""

import datetime
import importlib.metadata
import os
import platform

import psutil

_PACKAGES = ('jax', 'numpy', 'soundfile', 'tensorflow-datasets', 'array-record')


def describe() -> dict[str, str]:
    """Date, hardware and versions, without importing JAX, which would take an accelerator."""
    versions = [f'{name} {importlib.metadata.version(name)}' for name in _PACKAGES]
    memory = psutil.virtual_memory().total / 2**30
    return {
        'date': datetime.date.today().isoformat(),
        'hardware': f'{os.cpu_count()} CPU cores ({platform.machine()}), {memory:.0f} GiB',
        'versions': f'Python {platform.python_version()}, {", ".join(versions)}',
    }

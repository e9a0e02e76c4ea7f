"""Keeps compiled programs on disk for later processes."""

import hashlib
import logging
import os
import pathlib
import platform

import jax

from m2l_jax.interface.compilations import watch_compilations
from m2l_jax.interface.paths import user_cache_folder

_logger = logging.getLogger(__name__)

_CPU_INFO = pathlib.Path('/proc/cpuinfo')
_CPU_FIELDS = ('model name', 'flags', 'CPU part', 'Features')  # on x86 and on ARM
_LEAST_SECONDS = 'jax_persistent_cache_min_compile_time_secs'


def use_compile_cache() -> None:
    """Keeps compiled programs in the user's cache folder. Call it before anything is compiled.

    JAX's own settings take precedence: another folder (`JAX_COMPILATION_CACHE_DIR`), no cache
    (`JAX_ENABLE_COMPILATION_CACHE=false`), or the least compile time of a kept program. If the
    folder cannot be written, a warning says so. Compilations of over 5 s are logged.
    """
    watch_compilations()
    if not jax.config.jax_enable_compilation_cache:
        return
    if jax.config.jax_compilation_cache_dir is None:
        try:
            folder = user_cache_folder() / 'xla' / _machine_kind()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # its files are executed
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(f'{folder} is not writable')
        except (OSError, RuntimeError) as error:  # the latter for a user without a home
            remedy = 'set JAX_COMPILATION_CACHE_DIR to a folder'
            _logger.warning('compiled programs are not kept (%s): %s', error, remedy)
            return
        jax.config.update('jax_compilation_cache_dir', str(folder))
    if _LEAST_SECONDS.upper() not in os.environ:
        jax.config.update(_LEAST_SECONDS, 0.0)


def _machine_kind() -> str:
    """A name shared by machines that can run each other's programs, for homes that are shared.

    XLA refuses programs with instructions that a CPU lacks, and splits sums by the number of cores.
    """
    try:
        first_processor = _CPU_INFO.read_text().partition('\n\n')[0]
    except OSError:
        first_processor = ''
    lines = [line for line in first_processor.splitlines() if line.startswith(_CPU_FIELDS)]
    lines = lines or [platform.processor()]  # not on Linux
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    digest = hashlib.blake2b('\n'.join([*lines, str(cores)]).encode(), digest_size=6)
    return f'{platform.machine()}-{digest.hexdigest()}'

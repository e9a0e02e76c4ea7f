"""What has been compiled, kept on disk for the next process."""

import hashlib
import logging
import os
import pathlib
import platform

import jax

from m2l_jax.interface.paths import user_cache_folder

_logger = logging.getLogger(__name__)

_CPU_INFO = pathlib.Path('/proc/cpuinfo')
# Of a processor's entry, on x86 and on ARM.
_CPU_FIELDS = ('model name', 'flags', 'CPU part', 'Features')
_LEAST_SECONDS = 'jax_persistent_cache_min_compile_time_secs'


def use_compile_cache() -> None:
    """Keeps compiled programs in the user's cache folder, for this and later processes.

    JAX's own settings go before it: a folder of the user's choice (`JAX_COMPILATION_CACHE_DIR`), no
    cache at all (`JAX_ENABLE_COMPILATION_CACHE=false`), and from how many seconds of compiling
    on a program is kept, which is otherwise any. Where the folder cannot be written, a warning
    says so, and programs are compiled in each process. Call it before anything is compiled.
    """
    if not jax.config.jax_enable_compilation_cache:
        return
    if jax.config.jax_compilation_cache_dir is None:
        folder = _usable_folder()
        if folder is None:
            return
        jax.config.update('jax_compilation_cache_dir', str(folder))
    if _LEAST_SECONDS.upper() not in os.environ:
        jax.config.update(_LEAST_SECONDS, 0.0)


def _usable_folder() -> pathlib.Path | None:
    """The folder for programs of this machine's kind, or None, with a warning."""
    try:
        folder = user_cache_folder() / 'xla' / _machine_kind()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what is in it is executed
        reason = None if os.access(folder, os.W_OK | os.X_OK) else f'{folder} is not writable'
    except (OSError, RuntimeError) as error:  # the latter for a user without a home
        reason = str(error)
    if reason is None:
        return folder
    _logger.warning(
        'what is compiled is not kept (%s): set JAX_COMPILATION_CACHE_DIR to a folder', reason
    )
    return None


def _machine_kind() -> str:
    """A name that machines share which can run each other's programs.

    A home may belong to machines of several kinds, and a CPU lacks instructions that a program was
    compiled with on another: XLA then refuses it, each time anew. The cores count too, for work is
    cut by them, and sums with it: results are to be the same with and without a cache.
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

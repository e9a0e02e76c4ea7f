"""What has been compiled, kept on disk for the next process."""

import os
import pathlib

import jax


def use_compile_cache() -> None:
    """Keeps compiled programs in the user's cache folder, unless JAX was told of another."""
    if jax.config.jax_compilation_cache_dir is None:
        caches = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
        folder = pathlib.Path(caches, 'm2l_jax', 'xla')
        jax.config.update('jax_compilation_cache_dir', str(folder))

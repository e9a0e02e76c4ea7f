"""The flags that encoding and decoding share: what the model takes, and who works on what."""

import os

from absl import flags

from m2l_jax.corpus.execution import RunOptions
from m2l_jax.corpus.ray_runner import RayOptions
from m2l_jax.interface.errors import InputError


def define() -> None:
    """Defines them; their names are read below."""
    flags.DEFINE_string(
        'checkpoint', None, 'Folder of a training run or a conversion, .pt or .safetensors file.'
    )
    flags.DEFINE_enum(
        'dtype',
        None,
        ['float32', 'bfloat16'],
        'Of the computation; by default bfloat16 on accelerators and float32 on a CPU.',
    )
    flags.DEFINE_float('chunk_seconds', 60.0, 'Longest stretch of audio that is computed at once.')
    flags.DEFINE_integer(
        'batch_size',
        None,
        'Chunks that each device takes at once; by default 1 on a CPU, elsewhere what its memory '
        'has room for.',
        lower_bound=1,
    )
    flags.DEFINE_string(
        'shard',
        None,
        'i/n: work on the i-th of n shares, from 0, for array jobs; all of them make one output.',
    )
    flags.DEFINE_float('shard_megabytes', 512.0, 'Input in a shard, the unit of work, about.')
    flags.DEFINE_integer('shard_files', 2000, 'Most files in a shard.')
    flags.DEFINE_boolean('retry_failures', False, 'Work again on shards in which files failed.')
    flags.DEFINE_boolean('verify', False, 'Only read again all that is in --output, and check it.')
    flags.DEFINE_enum('runner', 'local', ['local', 'ray'], 'Ray needs a cluster that runs.')
    flags.DEFINE_string('ray_address', 'auto', 'Of the Ray cluster: HOST:PORT, or the one here.')
    flags.DEFINE_integer('ray_cpus', 4, 'Cores of each Ray actor, beside its accelerator.')


def run_options() -> RunOptions:
    """How the work is shared out, by the flags."""
    values = flags.FLAGS
    ray = None
    if values.runner == 'ray':
        ray = RayOptions(values.ray_address, values.ray_cpus)
    return RunOptions(
        values.shard_megabytes, values.shard_files, values.shard, ray, values.retry_failures
    )


def checkpoint() -> str | None:
    """The checkpoint's path, from wherever it is opened."""
    path = flags.FLAGS.checkpoint
    return None if path is None else os.path.abspath(path)


def dtype() -> str:
    """The computation's.

    Raises:
      InputError: if it cannot be chosen here, for the work is elsewhere.
    """
    import jax

    values = flags.FLAGS
    if values.dtype is not None:
        return values.dtype
    if values.runner == 'ray':
        raise InputError('--runner=ray needs --dtype: bfloat16 for accelerators, float32 for CPUs')
    return 'float32' if jax.default_backend() == 'cpu' else 'bfloat16'


def required(*names: str) -> None:
    """Raises InputError if flags are missing that --verify can do without."""
    for name in names:
        if not getattr(flags.FLAGS, name):
            raise InputError(f'--{name} is missing: see --helpshort')

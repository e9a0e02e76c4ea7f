"""The flags that encoding and decoding share: what the model takes, and who works on what."""

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from absl import flags

from m2l_jax.interface import command
from m2l_jax.interface.errors import InputError

if TYPE_CHECKING:  # a mistake in the flags is told before JAX is imported
    from m2l_jax.codec.encoder_decoder import EncoderDecoder
    from m2l_jax.corpus.execution import RunOptions

_logger = logging.getLogger(__name__)

flags.disclaim_key_flags()  # so that --helpshort shows them among the command's own


def define() -> None:
    """Defines them; the functions below read them."""
    command.define_checkpoint()
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
        'i/n: work on the i-th of n shares, from 0, for array jobs; all of them make one output. '
        'By default this process is the i-th of the n that Slurm, MPI or Kubernetes started.',
    )
    flags.DEFINE_integer(
        'join_timeout',
        300,
        'Seconds to wait for all processes of a Cloud TPU, where they have to be joined.',
        lower_bound=1,
    )
    flags.DEFINE_float('shard_megabytes', 512.0, 'Input in a shard, the unit of work, about.')
    flags.DEFINE_integer('shard_files', 2000, 'Most files in a shard.')
    flags.DEFINE_boolean(
        'retry_failures',
        False,
        'Work again on shards in which files failed: after trouble with a disk, say. The input '
        'must be the same: files that have changed since need another --output.',
    )
    flags.DEFINE_boolean('verify', False, 'Only read again all that is in --output, and check it.')
    flags.DEFINE_enum('runner', 'local', ['local', 'ray'], 'Ray needs a cluster that runs.')
    flags.DEFINE_string('ray_address', 'auto', 'Of the Ray cluster: HOST:PORT, or the one here.')
    flags.DEFINE_integer('ray_cpus', 4, 'Cores of each Ray actor, beside its accelerator.')


def run_options() -> 'RunOptions':
    """How the work is shared out, by the flags."""
    from m2l_jax.corpus.execution import RunOptions
    from m2l_jax.corpus.ray_runner import RayOptions

    values = flags.FLAGS
    ray = None
    if values.runner == 'ray':
        ray = RayOptions(values.ray_address, values.ray_cpus)
    return RunOptions(
        values.shard_megabytes, values.shard_files, values.shard, ray, values.retry_failures
    )


def run(work: Callable[[str, str], None]) -> None:
    """Calls `work` with --input and --output, or with --verify reads the output again.

    Of processes that a launcher has started together, each takes its share by the launcher's
    variables, unless --shard tells it; only where they do not tell are the processes joined.

    Raises:
      InputError: if a flag is missing, the output is damaged, or the work cannot be done.
    """
    values = flags.FLAGS
    output = _require('output')
    if values.verify:
        from m2l_jax.corpus.execution import verify_job

        print(verify_job(output))
        return
    source = _require('input')
    from m2l_jax.training import processes

    alone = values.shard is not None or values.runner == 'ray'
    share = None if alone else processes.find_share(os.environ)
    if share is not None:
        values.shard = f'{share.index}/{share.count}'
        processes.take_own_devices(share, os.environ)
        _logger.info('the launcher started several processes: this one takes %s', values.shard)
    alone |= share is not None
    try:
        place = None if alone else processes.find_place(None, None, None, os.environ)
    except InputError:
        raise InputError(
            'this launcher does not tell its processes how to join: pass --shard=i/n to each'
        ) from None
    with processes.joined(place, values.join_timeout):
        work(source, output)


def open_model() -> 'tuple[str | None, EncoderDecoder]':
    """The checkpoint's path or name, for wherever else it is opened, and the model in it.

    Raises:
      InputError: if it cannot be read, or its dtype is to be chosen for a machine elsewhere.
    """
    import jax

    from m2l_jax.codec.weights import is_packaged
    from m2l_jax.corpus.models import load_codec

    values = flags.FLAGS
    if values.runner == 'ray':
        if values.dtype is None:
            raise InputError(
                '--runner=ray needs --dtype: bfloat16 for accelerators, float32 for CPUs'
            )
        jax.config.update('jax_platforms', 'cpu')  # an accelerator here is for an actor
    checkpoint = values.checkpoint
    if checkpoint is not None and not is_packaged(checkpoint):
        checkpoint = os.path.abspath(checkpoint)
    return checkpoint, load_codec(checkpoint, values.dtype)


def _require(name: str) -> str:
    value = getattr(flags.FLAGS, name)
    if not value:
        raise InputError(f'--{name} is missing: --helpshort tells of all flags')
    return value

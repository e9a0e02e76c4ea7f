"""Flags that corpus commands share: the model, and the division of the work."""

import logging
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from m2l_jax.interface import command
from m2l_jax.interface.errors import InputError

if TYPE_CHECKING:  # a mistake in the flags is reported before JAX is imported
    from m2l_jax.codec.encoder_decoder import EncoderDecoder
    from m2l_jax.corpus.plan import Item, Shard
    from m2l_jax.corpus.run import RunOptions

_logger = logging.getLogger(__name__)

flags.disclaim_key_flags()  # so that --helpshort shows them among the command's own


def define_model() -> None:
    """Defines the flags of the model and of the size of its shards."""
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
        'Chunks that each device takes at once; by default 1 on a CPU, elsewhere as many as its '
        'memory holds.',
        lower_bound=1,
    )
    flags.DEFINE_float('shard_megabytes', 512.0, 'Input in a shard, the unit of work, about.')
    flags.DEFINE_integer('shard_files', 2000, 'Most files in a shard.')
    flags.DEFINE_integer(
        'join_timeout',
        300,
        'Seconds to wait for all processes of a Cloud TPU, where they have to be joined.',
        lower_bound=1,
    )


def define_sharing() -> None:
    """Defines the flags of the division of the work."""
    flags.DEFINE_string(
        'share',
        None,
        'i/n: work on the i-th of n shares, from 0, for array jobs; all of them make one output. '
        'By default this process is the i-th of the n that Slurm, MPI or Kubernetes started.',
    )
    flags.DEFINE_alias('shard', 'share')
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


def run_options(workers: int | None = None) -> 'RunOptions':
    """Returns the division of the work by the flags.

    Args:
      workers: shards that are worked on at once in this process, without any accelerator; by
        default two, and on a cluster each actor has an accelerator.
    """
    from m2l_jax.corpus.run import RayOptions, RunOptions

    values = flags.FLAGS
    ray = None
    if values.runner == 'ray':
        ray = RayOptions(values.ray_address, values.ray_cpus, accelerators=workers is None)
        workers = workers and values.ray_cpus
    threads = 2 if workers is None else workers
    return RunOptions(values.share, ray, values.retry_failures, threads)


def plan(items: 'Sequence[Item]') -> 'tuple[tuple[Shard, ...], dict[str, Any]]':
    """Plans shards by the flags, and returns them with the settings that the plan depends on."""
    from m2l_jax.corpus.plan import plan_shards

    cut = {name: flags.FLAGS[name].value for name in ('shard_megabytes', 'shard_files')}
    return plan_shards(items, *cut.values()), cut


def run(work: Callable[[str, str], None], devices: bool = True) -> None:
    """Calls `work` with --input and --output, or with --verify reads the output again.

    Each process of those that a launcher has started together takes its share by the launcher's
    variables, unless --share is passed; only where the variables are missing, processes join.

    Args:
      work: takes an input and an output.
      devices: whether it uses JAX's devices; without them processes don't join.

    Raises:
      InputError: if a flag is missing, the output is damaged, or the work cannot be done.
    """
    values = flags.FLAGS
    output = _require('output')
    if values.verify:
        from m2l_jax.corpus.verify import verify_job  # TFDS, which takes seconds to import

        print(verify_job(output))
        return
    source = _require('input')
    from m2l_jax.training import processes

    alone = values.share is not None or values.runner == 'ray'
    share = None if alone else processes.find_share(os.environ)
    if share is not None:
        values.share = f'{share.index}/{share.count}'
        _logger.info('the launcher started several processes: this one takes %s', values.share)
    if not devices:
        values.share = values.share or '0/1'
        work(source, output)
        return
    if share is not None:
        processes.take_own_devices(share, os.environ)
    alone |= share is not None
    try:
        place = None if alone else processes.find_place(None, None, None, os.environ)
    except InputError:
        raise InputError(
            'this launcher does not tell its processes how to join: pass --share=i/n to each'
        ) from None
    with processes.joined(place, values.join_timeout):
        work(source, output)


def open_model() -> 'tuple[str | None, EncoderDecoder]':
    """Returns the checkpoint's path or name, for other processes to open, and the model in it.

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

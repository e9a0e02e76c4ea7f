"""The flags and the frame that corpus commands share: model, division of the work, and report."""

import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from m2l_jax.interface import command
from m2l_jax.interface.errors import InputError

if TYPE_CHECKING:  # a mistake in the flags is reported before JAX is imported
    from m2l_jax.audio.suffixes import LeftOut
    from m2l_jax.codec.encoder_decoder import EncoderDecoder
    from m2l_jax.corpus.decode import DecodeSettings
    from m2l_jax.corpus.plan import Item, RunOptions, RunReport
    from m2l_jax.corpus.run import Job

_logger = logging.getLogger(__name__)

flags.disclaim_key_flags()  # so that --helpshort shows them among the command's own


def define_model() -> None:
    """Defines the flags of the model and of the size of shards."""
    command.define_checkpoint()
    define_computation(chunk_seconds=60.0)
    flags.DEFINE_integer(
        'batch_size',
        None,
        'Chunks that each device takes at once; by default 1 on a CPU, elsewhere as many as its '
        'memory holds.',
        lower_bound=1,
    )
    flags.DEFINE_float('shard_megabytes', 512.0, 'Approximate input in a shard, the unit of work.')
    flags.DEFINE_integer('shard_files', 2000, 'Most files in a shard.')
    flags.DEFINE_integer(
        'join_timeout',
        300,
        'Seconds to wait for all processes of a Cloud TPU, if they have to join.',
        lower_bound=1,
    )


def define_computation(chunk_seconds: float) -> None:
    """Defines the flags of how a model computes."""
    flags.DEFINE_enum(
        'dtype',
        None,
        ['float32', 'bfloat16'],
        'Of the computation; by default bfloat16 on accelerators and float32 on a CPU.',
    )
    flags.DEFINE_float(
        'chunk_seconds', chunk_seconds, 'Longest stretch of audio to compute at once.'
    )


def define_decoding(overlap: float) -> None:
    """Defines the flags of decoding, beside those of `define_computation`."""
    flags.DEFINE_integer('denoising_steps', 1, 'Decoding steps.', lower_bound=1)
    command.define_seed()
    flags.DEFINE_float(
        'overlap',
        overlap,
        'Seconds of the fade between chunks; 0 for none, as in the PyTorch package.',
    )
    flags.DEFINE_integer(
        'sample_rate',
        None,
        "Of the audio in Hz, for files that don't say it; by default the model's, 44100.",
        lower_bound=1000,
        upper_bound=1_000_000,
    )
    flags.DEFINE_float(
        'scale',
        None,
        "Factor from the latents to the model's, for files that don't say it; by default 0.06, as "
        'of `encode`, for unit variance on music; 1 for latents that are not scaled.',
    )


def decode_settings(codec: 'EncoderDecoder', format: str = 'wav') -> 'DecodeSettings':
    """Returns what the flags of decoding say, for files of audio of a format.

    Raises:
      InputError: if chunks are too short, or overlap too far.
    """
    from m2l_jax.corpus.decode import DecodeSettings
    from m2l_jax.corpus.models import chunking_of

    values = flags.FLAGS
    settings = DecodeSettings(
        codec.model_id,
        format,
        codec.config.dtype,
        values.denoising_steps,
        values.seed,
        values.chunk_seconds,
        values.overlap,
        values.sample_rate,
        values.scale,
    )
    chunking_of(codec, settings, codec.sample_rate)
    return settings


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
        'Redo shards in which files failed, e.g. for trouble with a disk. The input must be the '
        'same: changed files need another --output.',
    )
    flags.DEFINE_boolean('verify', False, 'Only read all files in --output again, and check them.')
    flags.DEFINE_enum('runner', 'local', ['local', 'ray'], 'Ray needs a running cluster.')
    flags.DEFINE_string('ray_address', 'auto', 'Of the Ray cluster: HOST:PORT, or the one here.')
    flags.DEFINE_integer('ray_cpus', 4, 'Cores of each Ray actor, beside its accelerator.')


def run_options(workers: int | None = None) -> 'RunOptions':
    """Returns the division of the work.

    Args:
      workers: shards that this process works on at once, for work without accelerators; None for
        two, and on a cluster for an accelerator to each actor.
    """
    from m2l_jax.corpus.plan import RunOptions

    values = flags.FLAGS
    ray = values.ray_address if values.runner == 'ray' else None
    threads = 2 if workers is None else workers
    options = RunOptions(
        values.share, values.retry_failures, threads, ray, values.ray_cpus, workers is None
    )
    # An actor without an accelerator works on as many shards at once as it has cores.
    shares_cores = ray is not None and workers is not None
    return dataclasses.replace(options, threads=options.ray_cpus) if shares_cores else options


def run_corpus(
    make_job: 'Callable[[int], Job]',
    settings: Any,
    items: 'Sequence[Item]',
    **left_out: 'LeftOut',
) -> 'RunReport':
    """Runs a job on items, in shards of the size that the flags name; see `run.run_job`.

    Args:
      make_job: makes the job from the number of shards.
      settings: a dataclass of all that the output depends on beside the items.
      items: the input.
      **left_out: passed on.
    """
    from m2l_jax.corpus.plan import plan_shards
    from m2l_jax.corpus.run import run_job

    sizes = {name: flags.FLAGS[name].value for name in ('shard_megabytes', 'shard_files')}
    shards = plan_shards(items, *sizes.values())
    settings = dataclasses.asdict(settings) | sizes
    job = make_job(len(shards))
    return run_job(job, shards, settings, flags.FLAGS.output, run_options(), **left_out)


def is_alone(source: str) -> bool:
    """True if the input is one file, which this process alone works on."""
    from m2l_jax.corpus.inputs import is_single_file

    return is_single_file(source) and flags.FLAGS.share is None and flags.FLAGS.runner == 'local'


def run(work: 'Callable[[str, str], str | RunReport]', devices: bool = True) -> None:
    """Calls `work` with --input and --output and prints its result; or verifies the output.

    Each process of those that a launcher has started together takes its share by the launcher's
    variables, unless --share is passed; processes join only where the variables are missing.

    Args:
      work: takes an input and an output; returns a report, or a line to print.
      devices: True if it uses JAX's devices; without them processes don't join.

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
    from m2l_jax.training import places, processes

    alone = values.share is not None or values.runner == 'ray'
    share = None if alone else places.find_share(os.environ)
    if share is not None:
        values.share = f'{share.index}/{share.count}'
        _logger.info('the launcher started several processes: this one takes %s', values.share)
        if devices:
            places.take_own_devices(share, os.environ)
    if not devices:
        values.share = values.share or '0/1'
    place = None
    if devices and not alone and share is None:
        try:
            place = places.find_place(None, None, None, os.environ)
        except InputError:
            raise InputError(
                'this launcher does not say how its processes join: pass --share=i/n to each'
            ) from None
    with processes.joined(place, values.join_timeout if devices else 0):
        result = work(source, output)
        print(result if isinstance(result, str) else result.describe())
        if not isinstance(result, str):
            result.check_any_done(output)


def open_model() -> 'tuple[str | None, EncoderDecoder, EncoderDecoder | None]':
    """Returns a checkpoint as actors find it, its model, and that again unless actors open it.

    Raises:
      InputError: if it cannot be read, or --dtype is missing for machines elsewhere.
    """
    import jax

    from m2l_jax.codec.weights import fix_checkpoint
    from m2l_jax.corpus.models import load_codec

    values = flags.FLAGS
    if values.runner == 'ray':
        if values.dtype is None:
            raise InputError(
                '--runner=ray needs --dtype: bfloat16 for accelerators, float32 for CPUs'
            )
        jax.config.update('jax_platforms', 'cpu')  # an accelerator here is for an actor
    checkpoint = fix_checkpoint(values.checkpoint)
    codec = load_codec(checkpoint, values.dtype)
    return checkpoint, codec, None if values.runner == 'ray' else codec


def _require(name: str) -> str:
    value = getattr(flags.FLAGS, name)
    if not value:
        raise InputError(f'--{name} is missing: --helpshort lists all flags')
    return value

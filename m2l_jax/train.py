"""Trains a Music2Latent autoencoder.

    python -m m2l_jax.train --config=configs/small.py --config.data.path=MUSIC --workdir=DIR

Running the same command again goes on from the newest checkpoint in DIR.

Several hosts train together when each runs the command, with the same folder DIR. Under Slurm, Open
MPI and on Cloud TPU that is all; elsewhere add --coordinator, --num_processes and --process_id.
"""

import math
import os

from absl import flags

from m2l_jax.interface import command

command.define_config()
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Folder for checkpoints and TensorBoard files; a bucket must be mounted.'
)
_COORDINATOR = flags.DEFINE_string(
    'coordinator',
    None,
    'HOST:PORT: the host of process 0, and a port that is free there. Not needed under Slurm, Open '
    'MPI and on Cloud TPU.',
)
_NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'Processes that train together.')
_PROCESS_ID = flags.DEFINE_integer('process_id', None, "This process's number, from 0.")
_JOIN_TIMEOUT = flags.DEFINE_integer(
    'join_timeout', 300, 'Seconds to wait for all processes to join.', lower_bound=1
)
_MINUTES = command.define_finite_float(
    'minutes',
    None,
    'Save and exit with 75 after this time, compilation included; an evaluation still finishes.',
)
_PROFILE = flags.DEFINE_string(
    'profile',
    '',
    'Trace steps with jax.profiler into the workdir, for TensorBoard: their number, after ten for '
    'warm-up, or FIRST:LAST.',
)
flags.mark_flags_as_required(['config', 'workdir'])


def main() -> None:
    """Parses the flags, joins the other processes, and trains."""
    from m2l_jax.training import places, processes
    from m2l_jax.training.config import TrainingConfig

    config = command.read_config(TrainingConfig)
    place = places.find_place(
        _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value, os.environ
    )
    with processes.joined(place, _JOIN_TIMEOUT.value):
        # Here, so that --help and a mistyped flag answer without loading TensorFlow.
        from m2l_jax.codec.compile_cache import use_compile_cache
        from m2l_jax.training.loop import train_and_evaluate

        # With several processes and homes that are not shared, only process 0 would find its
        # programs, and on GPUs the others would wait for its tuning: there, users name a folder.
        if place is None:
            use_compile_cache()
        minutes = math.inf if _MINUTES.value is None else _MINUTES.value
        train_and_evaluate(config, _WORKDIR.value, minutes, _PROFILE.value)


if __name__ == '__main__':
    command.run(main)

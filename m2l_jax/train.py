"""Trains a Music2Latent autoencoder.

    python -m m2l_jax.train --config=configs/demo.py --config.data.path=MUSIC --workdir=DIR

Running the same command again goes on from the newest checkpoint in DIR.
"""

from absl import flags

from m2l_jax.interface import command

_CONFIG = command.define_config()
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder for checkpoints and TensorBoard files.')
flags.mark_flags_as_required(['config', 'workdir'])


def main() -> None:
    """Parses the flags and trains."""
    # Here, so that --help and a mistyped flag answer without loading TensorFlow.
    from m2l_jax.training.loop import train_and_evaluate

    train_and_evaluate(command.read_config(_CONFIG), _WORKDIR.value)


if __name__ == '__main__':
    command.run(main)

"""The paper's recipe on a Cloud TPU v4 slice.

    python -m m2l_jax.train --config=configs/tpu_v4.py --config.data.path=MUSIC --workdir=DIR

A v4-8 has 4 chips: 4 crops a chip. The recipe's batch, learning rate and steps as they are.
One host: the processes of a larger slice are not joined yet.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The default recipe; waveforms travel to the chips, which compute the spectrograms."""
    config = default.get_config()
    config.data.representation = 'waveform'
    config.data.workers = 64
    return config

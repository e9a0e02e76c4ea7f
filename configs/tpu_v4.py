"""The paper's recipe on a Cloud TPU v4 slice; the argument is the slice, v4-8 by default.

    python -m m2l_jax.train --config=configs/tpu_v4.py --config.data.path=MUSIC --workdir=DIR
    python -m m2l_jax.train --config=configs/tpu_v4.py:v4-32 …  # on every host of the slice

TABLE
"""

from ml_collections import ConfigDict

from configs import default, scaling


def get_config(slice_name: str = 'v4-8') -> ConfigDict:
    """The default recipe scaled to the slice, which makes the spectrograms itself.

    Eight crops a chip: below eight the compiler cuts them along time to fill its lanes, and each
    takes more than twice the memory and the traffic.
    """
    config = default.get_config()
    scaling.scale(config, scaling.chips_of(slice_name, 'v4', 2), crops_per_device=8)
    config.data.representation = 'waveform'
    config.data.workers = 64
    return config

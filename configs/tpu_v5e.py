"""The paper's recipe on a Cloud TPU v5e slice; the argument is the slice, v5e-4 by default.

    python -m m2l_jax.train --config=configs/tpu_v5e.py --config.data.path=MUSIC --workdir=DIR
    python -m m2l_jax.train --config=configs/tpu_v5e.py:v5e-16 …  # on every host of the slice

TABLE
"""

from ml_collections import ConfigDict

from configs import default, scaling


def get_config(slice_name: str = 'v5e-4') -> ConfigDict:
    """The default recipe scaled to the slice, which makes the spectrograms itself.

    Eight crops a chip, as in `tpu_v4.py`.
    """
    config = default.get_config()
    scaling.scale(config, scaling.chips_of(slice_name, 'v5e', 1), crops_per_device=8)
    config.data.representation = 'waveform'
    config.data.workers = 64
    return config

"""A smoke test of the recipe for short trainings: one bundled piece, until it can be recognised.

    python -m m2l_jax.train --config=configs/overfit.py --workdir=DIR

2,691,714 parameters; about a quarter of an hour on two CPU cores. It evaluates on the piece that it
trains on: the figures say that training works, not how good a model is. docs/small.md has figures
to compare with.
"""

import pathlib

from ml_collections import ConfigDict

import m2l_jax
from m2l_jax.configs import small

_PIECE = pathlib.Path(m2l_jax.__file__).parent / 'assets' / 'train' / 'ode_to_joy.ogg'


def get_config() -> ConfigDict:
    """The recipe of `configs/small.py` with a model and batches for two CPU cores."""
    config = small.get_config('1000')
    config.model.update(
        base_channels=16,
        channel_multipliers=(1, 2, 4, 4, 4),
        unet_blocks=1,
        bottleneck_channels=128,
        embedding_channels=64,
        dtype='float32',
    )
    config.optimizer.update(
        learning_rate=1e-3, final_learning_rate=1e-5, warmup_steps=50, ema_decay=0.98
    )
    config.data.update(path=str(_PIECE), batch_size=8, crop_frames=16)
    config.train.update(steps=1000, log_every=20, checkpoint_every=500)
    config.evaluation.update(path=str(_PIECE), every=200, clips=1, seconds=5.0)
    return config

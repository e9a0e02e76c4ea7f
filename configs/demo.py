"""Fine-tunes the model that comes with this package on the bundled music: two minutes of two cores.

    python -m m2l_jax.train --config=configs/demo.py --workdir=DIR

13,014,210 parameters, those of `configs/small.py`. `--config.data.path=FOLDER` takes other music;
`--config.init_from=` starts from random parameters, for which these rates and steps are too low.
"""

import pathlib

from ml_collections import ConfigDict

import m2l_jax
from m2l_jax.configs import default, small

_MUSIC = pathlib.Path(m2l_jax.__file__).parent / 'assets' / 'train'


def get_config() -> ConfigDict:
    """The small model's sizes and the end of its schedules, on few and short crops."""
    config, trained = default.get_config(), small.get_config()
    config.init_from = 'small'
    config.model = trained.model
    config.model.dtype = 'float32'
    config.consistency.density = trained.consistency.density
    end = trained.consistency.schedule.end_exponent
    config.consistency.schedule.update(start_exponent=end, end_exponent=end)
    config.consistency.least_weight = trained.consistency.least_weight
    config.optimizer.update(learning_rate=1e-4, warmup_steps=5, b2=0.99, ema_decay=0.9)
    config.data.update(path=str(_MUSIC), batch_size=4, crop_frames=16, workers=2)
    config.train.update(steps=40, log_every=10, checkpoint_every=40)
    return config

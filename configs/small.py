"""A small model of the whole architecture, for half an hour of one GPU; the argument is the steps.

    python -m m2l_jax.train --config=configs/small.py --config.data.path=MUSIC --workdir=DIR
    MINUTES=9 launch/train_for.sh --config=configs/small.py:20000 --config.data.path=MUSIC …

13,014,210 parameters, 26 MB in float16: half the recipe's channels, and half of its bottleneck, in
width and in blocks. 0.248 TFLOP a crop and step. 30,000 steps of 16 crops are 119 PFLOP: 20 minutes
at a tenth of an H200's 989 TFLOP/s of bfloat16. That is arithmetic, not a measurement: measure the
steps a second first, then say how many there is time for, for the schedules stretch over them.
The learning rate was not tuned.

| of the recipe | here |
|---|---|
| batch, crops, noise levels, loss, Δ from 0.1 to 0.001 | the same |
| 800,000 steps | 30,000, or the argument; warm-up and averaging in proportion |
| learning rate 1e-4 to 1e-6 | four times: twice for half the channels, twice for few steps |
"""

from ml_collections import ConfigDict

from configs import default, scaling
from m2l_jax.interface.errors import InputError

_LEAST_STEPS = 1_000  # of which the warm-up is 12


def get_config(steps: str = '30000') -> ConfigDict:
    """The recipe at half the width and over as many steps, with the corpus in device memory."""
    if not steps.isdecimal() or int(steps) < _LEAST_STEPS:
        raise InputError(
            f'{steps!r} is no number of steps of at least {_LEAST_STEPS}: use e.g. '
            'configs/small.py:30000'
        )
    config = default.get_config()
    scaling.set_steps(config, int(steps))
    config.model.update(
        base_channels=32, bottleneck_channels=256, bottleneck_blocks=2, embedding_channels=128
    )
    config.consistency.density.update(log_sigma_mean=0.0, log_sigma_std=2.3)
    config.consistency.schedule.update(start_exponent=0.0, end_exponent=1.5)
    config.consistency.least_weight = 2.0
    config.consistency.auxiliary.weight = 30.0
    config.optimizer.update(
        learning_rate=6e-4,
        final_learning_rate=6e-6,
        warmup_steps=min(200, int(steps) // 5),
        b2=0.99,
    )
    config.data.resident = True
    config.train.update(checkpoint_every=int(steps) // 20, keep_checkpoints=1)
    config.evaluation.update(every=int(steps) // 20, clips=12, seconds=5.0, media_clips=0)
    return config

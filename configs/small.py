"""A small model of the whole architecture, for half an hour of one GPU; the argument is the steps.

    python -m m2l_jax.train --config=configs/small.py --config.data.path=MUSIC --workdir=DIR
    MINUTES=9 launch/train_for.sh --config=configs/small.py:20000 --config.data.path=MUSIC …

13,014,210 parameters, 26 MB in float16: half the recipe's channels, and half of its bottleneck, in
width and in blocks. 0.248 TFLOP a crop and step; an H200 takes 27 steps a second. The schedules
stretch over the steps there are: measure the steps a second first.

The recipe is one for short trainings; docs/small.md has its curves and the reasons. In thousands of
steps the paper's own leaves the latents unused. So here

- the teacher is the clean crop at first, Δ = 1: the model starts as a denoiser and becomes
  consistent as Δ falls;
- encoder and decoder learn from an auxiliary loss at first, whose share falls to 0 at half of the
  training: else the denoiser learns to do without latents that say nothing yet;
- high noise levels, from which decoding starts, are drawn more often and weigh 2 at least.
"""

from ml_collections import ConfigDict

from m2l_jax.configs import default, scaling
from m2l_jax.interface.errors import InputError

_LEAST_STEPS = 1_000
_WARMUP_STEPS = 200


def get_config(steps: str = '30000') -> ConfigDict:
    """The recipe at half the width and over as many steps, with the corpus in device memory."""
    if not steps.isdecimal() or int(steps) < _LEAST_STEPS:
        raise InputError(
            f'{steps!r} is no number of steps of at least {_LEAST_STEPS} after the '
            "config's name: use e.g. small:30000"
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
        warmup_steps=_WARMUP_STEPS,
        b2=0.99,
    )
    config.data.resident = True
    config.train.update(checkpoint_every=int(steps) // 20, keep_checkpoints=1)
    config.evaluation.update(every=int(steps) // 20, clips=12, seconds=5.0, media_clips=0)
    return config

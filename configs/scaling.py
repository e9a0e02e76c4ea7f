"""Rules by which batch, learning rate and steps change with the number of chips.

The recipe takes 800,000 steps of 16 crops. For a batch r times as large, these configs take

- the learning rate times √r, after the square-root rule of adaptive optimisers (Malladi et al.
  2022, arXiv 2205.10287), which would change their betas too: these are left as they are;
- 1/r of the steps, for the same number of crops, but never fewer than 50,000: how large a batch
  may be before more of it stops helping is not known for this model;
- warm-up, averaging and the time between checkpoints in proportion to the steps.

The distance between student and teacher follows the part of the training that is done, and needs
no scaling.
"""

from ml_collections import ConfigDict

from m2l_jax.compilation.topologies import CHIPS, count_chips
from m2l_jax.configs import default
from m2l_jax.interface.errors import InputError

_BATCH = 16
_STEPS = 800_000
_LEAST_STEPS = 50_000


def scale(config: ConfigDict, devices: int, crops_per_device: int) -> None:
    """Sets the batch, and all that goes with it, of a config with the recipe's own."""
    batch = devices * crops_per_device
    ratio = batch / _BATCH
    steps = max(round(_STEPS / ratio), _LEAST_STEPS)
    config.data.batch_size = batch
    config.optimizer.learning_rate *= ratio**0.5
    config.optimizer.final_learning_rate *= ratio**0.5
    set_steps(config, steps)


def set_steps(config: ConfigDict, steps: int) -> None:
    """Sets the steps, and what is in proportion to them, of a config with the recipe's own."""
    config.optimizer.warmup_steps = config.optimizer.warmup_steps * steps // _STEPS
    config.optimizer.ema_decay = 1 - (1 - config.optimizer.ema_decay) * _STEPS / steps
    config.train.checkpoint_every = config.train.checkpoint_every * steps // _STEPS
    config.evaluation.every = config.evaluation.every * steps // _STEPS
    config.train.steps = steps


def for_tpu(slice_name: str, generation: str) -> ConfigDict:
    """The recipe for a Cloud TPU slice of a generation; the chips make the spectrograms.

    Eight crops a chip: with four, on a v5e, the compiler cuts them along time to fill its lanes,
    and each takes more than twice the memory and the traffic.

    Raises:
      InputError: if the slice is of another generation, or no slice at all.
    """
    chips = count_chips(slice_name, generation)
    if not chips:
        example = f'{generation}-{4 * CHIPS[generation].named_units}'
        raise InputError(f'slice {slice_name!r} is not one of {generation}: use e.g. {example}')
    config = default.get_config()
    scale(config, chips, crops_per_device=8)
    config.data.representation = 'waveform'
    config.data.workers = 64
    return config

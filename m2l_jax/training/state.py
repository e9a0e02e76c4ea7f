"""What training carries from step to step, and how the optimiser and the average move it."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import optax

from m2l_jax.interface.devices import compute_once as compute_once
from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import Music2Latent, Params


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """RAdam with linear warm-up and cosine decay, and the parameters' moving average.

    Attributes:
      learning_rate: at the end of the warm-up.
      final_learning_rate: at the end of the cosine decay, on the last step.
      warmup_steps: steps over which the rate rises linearly from 0.
      b1, b2: RAdam's decay rates.
      ema_decay: of the moving average, once it has warmed up.
      clip_norm: norm to which larger gradients are scaled down; 0 leaves them as they are.
    """

    learning_rate: float
    final_learning_rate: float
    warmup_steps: int
    b1: float
    b2: float
    ema_decay: float
    clip_norm: float

    def __post_init__(self):
        if self.clip_norm < 0:
            raise InputError(f'config.optimizer.clip_norm={self.clip_norm} must be at least 0')
        for name in ('b1', 'b2', 'ema_decay'):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(
                    f'config.optimizer.{name}={getattr(self, name)} must be at least 0 and below 1'
                )


@flax.struct.dataclass
class TrainState:
    """Everything a checkpoint needs for training to go on as if it had not stopped.

    `step` counts batches. Those whose loss, gradient or update was not finite changed nothing but
    the counts: `skipped` has all of them, `skipped_in_row` those since the last update.
    """

    step: jax.Array
    skipped: jax.Array
    skipped_in_row: jax.Array
    params: Params
    ema_params: Params
    opt_state: optax.OptState


def learning_rate_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Learning rate as a function of the step.

    Raises:
      InputError: if the warm-up is longer than the training.
    """
    if not 0 <= config.warmup_steps < steps:
        raise InputError(
            f'config.optimizer.warmup_steps={config.warmup_steps} must be below '
            f'config.train.steps={steps}'
        )
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=steps,
        end_value=config.final_learning_rate,
    )


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """RAdam without weight decay, behind the clipping of the gradient."""
    # The same structure with and without, so that a run may go on with another setting.
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    radam = optax.radam(learning_rate_schedule(config, steps), b1=config.b1, b2=config.b2)
    return optax.chain(clip, radam)


def create_state(
    model: Music2Latent, optimizer: optax.GradientTransformation, key: jax.Array
) -> TrainState:
    """A fresh state of random parameters."""
    return start_from(model.init_params(key), optimizer)


def start_from(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """A fresh state of the given parameters, at which the average starts too."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
        skipped_in_row=jnp.zeros((), jnp.int32),
        params=params,
        # A copy: the step donates its buffers, and two leaves must not share one.
        ema_params=jax.tree.map(jnp.copy, params),
        opt_state=optimizer.init(params),
    )


def ema_rate(updates: jax.Array, decay: float) -> jax.Array:
    """1 - min(decay, (1 + n)/(10 + n)) after n updates: how far the average moves.

    The complement is formed exactly, for 1 - 0.9999 in float32 is off by 2e-4 of itself.
    """
    return jnp.maximum(1 - decay, 9 / (10 + updates))

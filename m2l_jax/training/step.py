"""One training step: from a batch to new parameters, on every device at once."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from m2l_jax.audio.spectrogram import to_spectrogram
from m2l_jax.consistency.loss import consistency_loss
from m2l_jax.consistency.noise import IndexDensity, StepSchedule, teacher_index
from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import Music2Latent, Params
from m2l_jax.training.mesh import AXIS, REPLICATED, ROWS
from m2l_jax.training.state import TrainState, ema_rate

_SATURATED = 0.99

Metrics = dict[str, jax.Array]
TrainStep = Callable[[TrainState, jax.Array], tuple[TrainState, Metrics]]


@dataclasses.dataclass(frozen=True)
class ConsistencyConfig:
    """Consistency training's constants.

    Attributes:
      density: where on the index axis training looks.
      schedule: the distance between student and teacher.
      huber_scale: c of the pseudo-Huber loss over √n.
    """

    density: IndexDensity
    schedule: StepSchedule
    huber_scale: float

    def __post_init__(self):
        if self.huber_scale <= 0:
            raise InputError(f'config.consistency.huber_scale={self.huber_scale} must be above 0')


@dataclasses.dataclass(frozen=True)
class Draws:
    """The random part of a step, a row each: `index` `[B]` and `noise` `[B, F, T, 2]`."""

    index: jax.Array
    noise: jax.Array


jax.tree_util.register_dataclass(Draws)


def draw(
    key: jax.Array,
    rows: jax.Array,
    shape: tuple[int, ...],
    model: Music2Latent,
    density: IndexDensity,
) -> Draws:
    """Noise index and noise of each row, as a function of its number in the *global* batch.

    So they do not depend on how many devices share the batch.

    Args:
      key: of the step.
      rows: `[B]`, row numbers.
      shape: of a single row's noise.
    """

    def draw_row(row):
        index_key, noise_key = jax.random.split(jax.random.fold_in(key, row))
        index = density.sample(index_key, model.config.noise)
        return Draws(index, jax.random.normal(noise_key, shape))

    return jax.vmap(draw_row)(rows)


def compute_loss(
    params: Params,
    model: Music2Latent,
    spectrogram: jax.Array,
    draws: Draws,
    delta: jax.Array,
    huber_scale: float,
) -> tuple[jax.Array, jax.Array]:
    """Consistency loss of each row, and the latents.

    Encoder and decoder run once; student and teacher share their pyramid. The teacher sees
    parameters and pyramid behind `stop_gradient`, so that no backward pass of it is ever built.

    Args:
      spectrogram: clean crops, `[B, F, T, 2]`.
      draws: index and noise of each row.
      delta: distance between the student's and the teacher's index.

    Returns:
      losses `[B]` and latents `[B, T/8, 64]`, float32.
    """

    def apply(params, *inputs, method):
        return model.apply({'params': params}, *inputs, method=method)

    latents = apply(params, spectrogram, method='encode')
    pyramid = apply(params, latents, method='pyramid')
    fixed_params, fixed_pyramid = jax.lax.stop_gradient((params, pyramid))
    levels = model.config.noise
    losses = consistency_loss(
        lambda noisy, sigma: apply(params, noisy, sigma, pyramid, method='denoise'),
        lambda noisy, sigma: apply(fixed_params, noisy, sigma, fixed_pyramid, method='denoise'),
        spectrogram,
        draws.noise,
        levels.sigma(draws.index),
        levels.sigma(teacher_index(draws.index, delta)),
        huber_scale,
    )
    return losses, latents


def make_train_step(
    model: Music2Latent,
    consistency: ConsistencyConfig,
    optimizer: optax.GradientTransformation,
    learning_rate: optax.Schedule,
    ema_decay: float,
    steps: int,
    seed: int,
    mesh: Mesh,
) -> TrainStep:
    """Compiles (state, batch) -> (state, metrics) for the mesh; the state's buffers are donated.

    The batch is `[B, F, T, 2]` spectrograms or `[B, N]` waveforms over the mesh; state and metrics
    are replicated.
    """

    def mean_loss(params, spectrogram, draws, delta):
        losses, latents = compute_loss(
            params, model, spectrogram, draws, delta, consistency.huber_scale
        )
        # Averaged over the mesh *inside* the differentiated function: shard_map sums the gradient
        # of replicated parameters over the devices, and of the mean that is the mean's gradient.
        return jax.lax.pmean(jnp.mean(losses), AXIS), latents

    def step_on_each_device(state: TrainState, batch: jax.Array) -> tuple[TrainState, Metrics]:
        spectrogram = batch if batch.ndim == 4 else to_spectrogram(batch, model.config.spectrogram)
        rows = jax.lax.axis_index(AXIS) * batch.shape[0] + jnp.arange(batch.shape[0])
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        draws = draw(key, rows, spectrogram.shape[1:], model, consistency.density)
        delta = consistency.schedule.delta(state.step / steps)
        (loss, latents), gradients = jax.value_and_grad(mean_loss, has_aux=True)(
            state.params, spectrogram, draws, delta
        )
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {
            'loss': loss,
            'gradient_norm': optax.tree.norm(gradients),
            'update_norm': optax.tree.norm(updates),
            'learning_rate': learning_rate(state.step),
            'delta': delta,
            **_latent_metrics(latents),
        }
        ema_params = optax.incremental_update(
            params, state.ema_params, ema_rate(state.step, ema_decay)
        )
        return TrainState(state.step + 1, params, ema_params, opt_state), metrics

    sharded = jax.shard_map(
        step_on_each_device,
        mesh=mesh,
        in_specs=(REPLICATED, ROWS),
        out_specs=(REPLICATED, REPLICATED),
    )
    return jax.jit(sharded, donate_argnums=0)


def _latent_metrics(latents: jax.Array) -> Metrics:
    """Spread of the latents, and how many are stuck at the ends of tanh, over the whole mesh."""
    mean, mean_square, saturated = jax.lax.pmean(
        (
            jnp.mean(latents),
            jnp.mean(latents**2),
            jnp.mean((jnp.abs(latents) > _SATURATED).astype(jnp.float32)),
        ),
        AXIS,
    )
    return {
        'latent_std': jnp.sqrt(jnp.maximum(mean_square - mean**2, 0.0)),
        'latents_saturated': saturated,
    }

"""One training step: from a batch to new parameters, on every device at once."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from m2l_jax.audio.planes import to_planes
from m2l_jax.consistency.auxiliary import auxiliary_loss
from m2l_jax.consistency.config import ConsistencyConfig
from m2l_jax.consistency.keys import random_key
from m2l_jax.consistency.loss import consistency_loss, identity_while
from m2l_jax.consistency.noise import IndexDensity, teacher_index
from m2l_jax.evaluation.noise_bins import latent_moments, latent_spread
from m2l_jax.model.autoencoder import Music2Latent, Params
from m2l_jax.model.bottleneck import draw_rounded, quantise_rows
from m2l_jax.training.mesh import (
    AXIS,
    REPLICATED,
    ROWS,
    mean_over_parts,
    replicated,
    shared_out,
    state_shardings,
)
from m2l_jax.training.state import (
    TrainState,
    ema_rate,
    param_shapes,
    ravel,
    trained_numbers,
    unravel,
    with_frozen,
)

# Metrics that must be finite for an update; the second exists only where its loss is used.
CHECKED = ('loss', 'auxiliary_loss', 'gradient_norm', 'update_norm')

Metrics = dict[str, jax.Array]
Fetch = Callable[[Any, jax.Array], jax.Array]  # (data, step) -> this device's rows
# (state, data, steps of the whole training) -> (state, metrics)
TrainStep = Callable[[TrainState, Any, Any], tuple[TrainState, Metrics]]


def as_given(data: jax.Array, step: jax.Array) -> jax.Array:
    """The `Fetch` of data that are each device's rows already."""
    return data


@dataclasses.dataclass(frozen=True)
class Draws:
    """The random numbers of a step: `index` `[B]` and `noise` `[B, F, T, C]`."""

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
    """Draws noise index and noise of rows; the number of devices doesn't change them.

    Args:
      key: of the step.
      rows: `[B]`, numbers in the *global* batch.
      shape: of a single row's noise.
    """

    def draw_row(row):
        index_key, noise_key = jax.random.split(jax.random.fold_in(key, row))
        index = density.sample(index_key, model.config.noise)
        return Draws(index, jax.random.normal(noise_key, shape))

    return jax.vmap(draw_row)(rows)


def step_key(seed: int, step: jax.Array | int) -> jax.Array:
    """The key of all that a step draws."""
    return jax.random.fold_in(random_key(seed), step)


def compute_loss(
    params: Params,
    model: Music2Latent,
    spectrogram: jax.Array,
    draws: Draws,
    delta: jax.Array,
    huber_scale: float,
    least_weight: float = 0.0,
    held: jax.Array | None = None,
    denoising: jax.Array | None = None,
    rounded: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Consistency loss of each row.

    Student and teacher share the latents and their pyramid. `stop_gradient` around the teacher's
    parameters and pyramid, not its output, avoids building its backward pass.

    Args:
      spectrogram: clean crops, `[B, F, T, C]`.
      draws: index and noise of each row.
      delta: Δ between the student's and the teacher's index.
      huber_scale, least_weight: see `ConsistencyConfig`.
      held: share of the gradient, from 0 to 1, kept from encoder and decoder; none by default.
      denoising: true where Δ = 1 and the teacher is not computed; None if it always is.
      rounded: `[B]`, rows whose latents are rounded to tokens; none by default.

    Returns:
      losses `[B]` and latents `[B, T/8, 64]`, not rounded, both float32, and level 0 of the pyramid
      `[B, F, T, C]`.
    """

    def apply(params, *inputs, method):
        return model.apply({'params': params}, *inputs, method=method)

    latents = apply(params, spectrogram, method='encode')
    rows = latents if rounded is None else quantise_rows(latents, rounded, model.config.levels)
    pyramid = apply(params, rows, method='pyramid')
    fixed_params, fixed_pyramid = jax.lax.stop_gradient((params, pyramid))
    conditioning = pyramid if held is None else _hold(pyramid, fixed_pyramid, held)
    levels = model.config.noise
    teacher = identity_while(
        denoising,
        lambda noisy, sigma: apply(fixed_params, noisy, sigma, fixed_pyramid, method='denoise'),
    )
    losses = consistency_loss(
        lambda noisy, sigma: apply(params, noisy, sigma, conditioning, method='denoise'),
        teacher,
        spectrogram,
        draws.noise,
        levels.sigma(draws.index),
        levels.sigma(teacher_index(draws.index, delta)),
        huber_scale,
        least_weight,
    )
    return losses, latents, pyramid[0]


def _hold(tree: Any, fixed: Any, part: jax.Array) -> Any:
    """The tree, with its gradient scaled by 1 - part; `fixed` is it behind `stop_gradient`."""
    return jax.tree.map(lambda x, y: x + jnp.asarray(part, x.dtype) * (y - x), tree, fixed)


def make_train_step(
    model: Music2Latent,
    consistency: ConsistencyConfig,
    make_optimizer: Callable[[jax.Array], optax.GradientTransformation],
    learning_rate: Callable[[jax.Array], optax.Schedule],
    ema_decay: float,
    seed: int,
    mesh: Mesh,
    accumulate: int = 1,
    data_specs: Any = ROWS,
    fetch: Fetch = as_given,
    shard_optimizer: bool = False,
    freeze: str = '',
) -> TrainStep:
    """The jitted step on the mesh; it donates the state's buffers.

    If the loss, gradient or update is not finite, only the state's counts change. The length of the
    training is an argument, so that another one compiles nothing.

    Args:
      make_optimizer: makes the optimiser for a number of steps.
      learning_rate: makes its schedule, for the metrics.
      accumulate: parts in which each device takes its rows, to save memory.
      data_specs: the data's partition specs.
      fetch: makes of the data, on each device, its rows: `[b, F, T, C]` spectrograms, or waveforms,
        `[b, N]` or of stereo `[b, 2, N]`.
      shard_optimizer: each device keeps and updates its part of moments and average.
      freeze: name in `state.FROZEN` of what keeps its parameters and their average to the bit.
    """
    mean_over_mesh = jax.shard_map(
        functools.partial(_mean_over_mesh, model, consistency, seed, accumulate, fetch, freeze),
        mesh=mesh,
        in_specs=(REPLICATED, REPLICATED, REPLICATED, data_specs),
        out_specs=REPLICATED,
    )

    def train_step(state: TrainState, data: Any, steps: jax.Array) -> tuple[TrainState, Metrics]:
        progress = state.step / steps
        mean = mean_over_mesh(state.params, state.step, progress, data)
        count, optimizer = state.step - state.skipped, make_optimizer(steps)
        updates, opt_state = optimizer.update(mean['gradient'], state.opt_state, state.params)
        trained = None
        if freeze:  # weight decay moves parameters without a gradient
            trained = trained_numbers(param_shapes(model), freeze, updates.size)
            updates = jnp.where(trained, updates, 0)
        if shard_optimizer:
            # Otherwise XLA gathers the two moments rather than the updates.
            updates = jax.lax.with_sharding_constraint(updates, shared_out(mesh, updates))
        checked = {
            **mean['losses'],
            'gradient_norm': optax.tree.norm(mean['gradient']),
            'update_norm': optax.tree.norm(updates),
        }
        finite = jnp.all(jnp.isfinite(jnp.stack(list(checked.values()))))
        updated = _apply(updates, opt_state, state, ema_rate(count, ema_decay), trained)
        kept = state.replace(skipped=state.skipped + 1, skipped_in_row=state.skipped_in_row + 1)
        after = jax.tree.map(functools.partial(jnp.where, finite), updated, kept)
        after = after.replace(step=state.step + 1)
        metrics = {
            **checked,
            'learning_rate': learning_rate(steps)(count),
            'delta': consistency.schedule.delta(progress),
            'skipped_updates': after.skipped,
            'skipped_in_row': after.skipped_in_row,
            **latent_spread(mean['moments']),
        }
        return jax.lax.with_sharding_constraint(
            (after, metrics),
            (state_shardings(mesh, after, shard_optimizer), replicated(mesh)),
        )

    return jax.jit(train_step, donate_argnums=0)


def _apply(
    updates: jax.Array,
    opt_state: optax.OptState,
    state: TrainState,
    rate: jax.Array,
    trained: jax.Array | None,
) -> TrainState:
    """The state after an update, but for its step; `trained` is false for what is frozen."""
    params = optax.apply_updates(state.params, updates)
    updated = state.replace(
        skipped_in_row=jnp.zeros_like(state.skipped_in_row),
        params=params,
        ema_params=optax.incremental_update(params, state.ema_params, rate),
        opt_state=opt_state,
    )
    if trained is None:
        return updated
    # x + 0 and the mean of equal numbers are not always the same to the bit.
    return updated.replace(
        params=jnp.where(trained, params, state.params),
        ema_params=jnp.where(trained, updated.ema_params, state.ema_params),
    )


def _mean_over_mesh(
    model: Music2Latent,
    consistency: ConsistencyConfig,
    seed: int,
    accumulate: int,
    fetch: Fetch,
    freeze: str,
    params: jax.Array,
    step: jax.Array,
    progress: jax.Array,
    data: Any,
) -> dict[str, Any]:
    """Losses, moments of the latents, and gradient, averaged over all rows of all devices."""
    batch = fetch(data, step)
    rows = jax.lax.axis_index(AXIS) * batch.shape[0] + jnp.arange(batch.shape[0])
    key = step_key(seed, step)
    # As varying parameters: else JAX would average the gradient of each part over the devices.
    params = jax.lax.pcast(params, AXIS, to='varying')
    local = mean_over_parts(
        lambda *part: _part_gradient(params, model, consistency, freeze, progress, key, *part),
        accumulate,
        (batch, rows),
    )
    return jax.lax.pmean(local, AXIS)


def _part_gradient(
    params: jax.Array,
    model: Music2Latent,
    consistency: ConsistencyConfig,
    freeze: str,
    progress: jax.Array,
    key: jax.Array,
    batch: jax.Array,
    rows: jax.Array,
) -> dict[str, Any]:
    """Mean losses, moments of the latents, and gradient, of a part of a device's rows."""
    config = model.config
    spectrogram = batch if batch.ndim == 4 else to_planes(batch, config.spectrogram, config.layout)
    draws = draw(key, rows, spectrogram.shape[1:], model, consistency.density)
    delta = consistency.schedule.delta(progress)
    draws = dataclasses.replace(draws, index=consistency.schedule.place(draws.index, delta))

    auxiliary, scale = consistency.auxiliary, consistency.huber_scale
    share = auxiliary.share(progress) if auxiliary.weight else None
    denoising = consistency.schedule.denoises(progress)
    is_discrete = model.config.is_discrete
    rounded = draw_rounded(key, rows, consistency.unquantised) if is_discrete else None

    def total_loss(params):
        params = with_frozen(params, freeze)
        inputs = params, model, spectrogram, draws, delta, scale, consistency.least_weight
        losses, latents, activation = compute_loss(*inputs, share, denoising, rounded)
        total = jnp.mean(losses)
        means = {'loss': total}
        if auxiliary.weight:
            sigma_data = model.config.noise.sigma_data
            distances = auxiliary_loss(activation, spectrogram, sigma_data, scale)
            means['auxiliary_loss'] = jnp.mean(distances)
            total += auxiliary.weight * share * means['auxiliary_loss']
        return total, (means, latent_moments(latents, model.config))

    (_, (losses, moments)), gradient = jax.value_and_grad(total_loss, has_aux=True)(
        unravel(params, param_shapes(model))
    )
    return {'losses': losses, 'moments': moments, 'gradient': ravel(gradient, params.size)}

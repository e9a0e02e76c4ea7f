"""The training state: parameters, their moving average and the optimiser."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from m2l_jax.checkpoint.averages import exponent
from m2l_jax.consistency.keys import random_key
from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import FROZEN, Music2Latent, Params
from m2l_jax.training.muon import scale_by_muon_or_radam


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """RAdam (Liu et al. 2020), its schedule and the moving average; base class of the others.

    Attributes:
      learning_rate: at the end of the warm-up.
      final_learning_rate: on the last step, at the end of the cosine decay.
      warmup_steps: over which the rate rises linearly from 0.
      b1: decay rate of the first moment.
      b2: decay rate of the second moment.
      ema_decay: of the moving average, once it has warmed up.
      clip_norm: largest norm of the gradient; 0: no clipping.
      ema_profiles: σ_rel of more averages, of which others are made after the run; see
        `checkpoint.averages`.
    """

    learning_rate: float
    final_learning_rate: float
    warmup_steps: int
    b1: float
    b2: float
    ema_decay: float
    clip_norm: float
    name: str = 'radam'
    ema_profiles: tuple[float, ...] = ()  # missing from old checkpoints

    def __post_init__(self):
        if self.clip_norm < 0:
            raise InputError(f'config.optimizer.clip_norm={self.clip_norm} must be at least 0')
        for name in ('b1', 'b2', 'ema_decay'):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(
                    f'config.optimizer.{name}={getattr(self, name)} must be at least 0 and below 1'
                )
        if len(set(self.ema_profiles)) < len(self.ema_profiles):
            raise InputError(f'config.optimizer.ema_profiles={self.ema_profiles} names one twice')
        for sigma_rel in self.ema_profiles:
            try:
                exponent(sigma_rel)
            except ValueError as error:
                raise InputError(f'config.optimizer.ema_profiles: {error}') from None

    def make(self, rate: optax.Schedule, shapes: Any = None) -> optax.GradientTransformation:
        """The optimiser without clipping; `shapes`, see `make_optimizer`, are for some alone."""
        return optax.radam(rate, b1=self.b1, b2=self.b2)


@dataclasses.dataclass(frozen=True)
class AdamWConfig(OptimizerConfig):
    """AdamW (Loshchilov & Hutter 2019): Adam with weight decay, of all parameters."""

    name: str = 'adamw'
    weight_decay: float = 1e-2

    def make(self, rate: optax.Schedule, shapes: Any = None) -> optax.GradientTransformation:
        """The optimiser without clipping; all parameters are alike to it."""
        return optax.adamw(rate, b1=self.b1, b2=self.b2, weight_decay=self.weight_decay)


@dataclasses.dataclass(frozen=True)
class MuonConfig(OptimizerConfig):
    """Muon for the kernels of inner layers, RAdam for the rest; see `scale_by_muon_or_radam`.

    Attributes:
      momentum: decay rate of Muon's momentum; `b1` and `b2` are RAdam's.
    """

    name: str = 'muon'
    momentum: float = 0.95

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise InputError(
                f'config.optimizer.momentum={self.momentum} must be at least 0 and below 1'
            )

    def make(self, rate: optax.Schedule, shapes: Any = None) -> optax.GradientTransformation:
        """The optimiser without clipping, of vectors with `shapes`, of trees without."""
        directions = scale_by_muon_or_radam(self.b1, self.b2, self.momentum)
        if shapes is not None:
            directions = _on_vectors(directions, shapes)
        return optax.chain(directions, optax.scale_by_learning_rate(rate))


OPTIMIZERS: Mapping[str, type[OptimizerConfig]] = MappingProxyType(
    {'radam': OptimizerConfig, 'adamw': AdamWConfig, 'muon': MuonConfig}
)


@flax.struct.dataclass
class TrainState:
    """Everything that training needs to go on from a checkpoint.

    Parameters, average and each moment are one vector, which costs a compiler and a GPU far less
    than hundreds of arrays; in checkpoints, each is a tree: see `to_trees`.

    Attributes:
      step: number of batches.
      skipped, skipped_in_row: batches without an update, because loss, gradient or update was not
        finite; in all, and since the last update.
      params, ema_params: parameters and their moving average.
      opt_state: the optimiser's.
    """

    step: jax.Array
    skipped: jax.Array
    skipped_in_row: jax.Array
    params: Any
    ema_params: Any
    opt_state: optax.OptState


def learning_rate_schedule(config: OptimizerConfig, steps: jax.Array | int) -> optax.Schedule:
    """Learning rate as a function of the step: a linear warm-up, then half a cosine.

    As `optax.warmup_cosine_decay_schedule`, but `steps` may be an argument of a compiled program.
    """

    def rate(count: jax.Array) -> jax.Array:
        after = count - config.warmup_steps
        progress = jnp.clip(after / (steps - config.warmup_steps), 0, 1)
        cosine = (1 + jnp.cos(jnp.pi * progress)) / 2
        final = config.final_learning_rate
        decayed = final + (config.learning_rate - final) * cosine
        warming = config.learning_rate * count / max(config.warmup_steps, 1)
        return jnp.where(after < 0, warming, decayed)

    return rate


def make_optimizer(
    config: OptimizerConfig, steps: jax.Array | int, shapes: Any = None
) -> optax.GradientTransformation:
    """The config's optimiser for a training of some steps, with clipping of the gradient.

    `shapes` are those of the parameters, which an optimiser that does not work element by element
    needs of vectors.
    """
    # The same structure with and without clipping, so that a run may resume with another setting.
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    averages = [_keep_profiles(config.ema_profiles)] if config.ema_profiles else []
    rate = learning_rate_schedule(config, steps)
    return optax.chain(clip, config.make(rate, shapes), *averages)


def create_state(
    model: Music2Latent, optimizer: optax.GradientTransformation, key: jax.Array
) -> TrainState:
    """A fresh state of random parameters."""
    return start_from(model.init_params(key), optimizer)


def start_from(
    params: Params, optimizer: optax.GradientTransformation, size: int = 0
) -> TrainState:
    """A fresh state of parameters; zeros fill its vectors up to `size`, for devices to divide."""
    vector = ravel(params, size)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
        skipped_in_row=jnp.zeros((), jnp.int32),
        params=vector,
        # A copy: the step donates its buffers, and two arrays must not share one.
        ema_params=jnp.copy(vector),
        opt_state=optimizer.init(vector),
    )


@functools.cache
def param_shapes(model: Music2Latent) -> Params:
    """Shapes and types of a model's parameters."""
    return jax.eval_shape(model.init_params, random_key(0))


def ravel(tree: Any, size: int = 0) -> jax.Array:
    """Joins a tree's leaves to a vector `[N]`, filled with zeros up to `size`."""
    vector = jax.lax.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)], 0)
    return jnp.pad(vector, (0, max(size - vector.size, 0)))


def unravel(vector: jax.Array, shapes: Any) -> Any:
    """The inverse of `ravel`, as a tree of the given shapes."""
    leaves, structure = jax.tree.flatten(shapes)
    ends = np.cumsum([math.prod(leaf.shape) for leaf in leaves])
    parts = jnp.split(vector[: ends[-1]], ends[:-1])
    return structure.unflatten(
        part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)
    )


def with_frozen(params: Params, freeze: str) -> Params:
    """The parameters, those of `FROZEN[freeze]` as constants, which need no backward pass."""
    frozen = {part: jax.lax.stop_gradient(params[part]) for part in FROZEN[freeze]}
    return {**params, **frozen}


def trained_numbers(shapes: Params, freeze: str, size: int) -> jax.Array:
    """True where a number of `ravel`'s vector is none of `FROZEN[freeze]`: `[size]`."""
    place, begin = jnp.arange(size), 0
    frozen = jnp.zeros(size, bool)
    for part in sorted(shapes):  # the order of a tree's leaves
        end = begin + sum(leaf.size for leaf in jax.tree.leaves(shapes[part]))
        if part in FROZEN[freeze]:
            frozen |= (begin <= place) & (place < end)
        begin = end
    return ~frozen


def to_trees(state: Any, shapes: Params) -> Any:
    """A state as checkpoints hold it: each vector as a tree of the given shapes."""
    return jax.tree.map(lambda leaf: unravel(leaf, shapes) if leaf.ndim else leaf, state)


def to_vectors(state: Any, like: Any) -> Any:
    """The inverse of `to_trees`; `like` has the vectors' sizes."""
    return jax.tree.map(
        lambda leaf, part: ravel(part, leaf.size) if leaf.ndim else part, like, state
    )


class ProfilesState(NamedTuple):
    """Averages of the parameters whose weights grow as powers of the updates so far."""

    count: jax.Array
    averages: tuple[Any, ...]


def _keep_profiles(sigma_rels: tuple[float, ...]) -> optax.GradientTransformation:
    """Averages θ̂_t = β θ̂_{t-1} + (1 - β) θ_t, β = (1 - 1/t)^(γ+1); changes no update.

    Karras et al. 2024 (arXiv 2312.02696), section 3.1, with the γ of each σ_rel.
    """
    powers = [exponent(sigma_rel) + 1 for sigma_rel in sigma_rels]

    def init(params: Any) -> ProfilesState:
        zeros = tuple(optax.tree.zeros_like(params, jnp.float32) for _ in powers)
        return ProfilesState(jnp.zeros((), jnp.int32), zeros)

    def update(updates: Any, state: ProfilesState, params: Any) -> tuple[Any, ProfilesState]:
        count = state.count + 1
        after = optax.apply_updates(params, updates)
        # As 1 - β would lose digits; the first average is θ_1.
        rates = [-jnp.expm1(power * jnp.log1p(-1 / count)) for power in powers]
        averages = map(optax.incremental_update, [after] * len(rates), state.averages, rates)
        return updates, ProfilesState(count, tuple(averages))

    return optax.GradientTransformation(init, update)


def profiles_of(state: TrainState) -> ProfilesState:
    """The averages of `ema_profiles`, if the config has any."""
    return state.opt_state[-1]


def _on_vectors(
    optimizer: optax.GradientTransformation, shapes: Params
) -> optax.GradientTransformation:
    """Makes an optimiser of trees, whose fresh state is zeros, one of vectors."""

    def update(gradient: jax.Array, state: optax.OptState, params: Any = None) -> Any:
        after = optimizer.update(*to_trees((gradient, state), shapes))
        return to_vectors(after, like=(gradient, state))

    return optax.GradientTransformation(optimizer.init, update)


def ema_rate(updates: jax.Array, decay: float) -> jax.Array:
    """Step of the average, 1 - min(decay, (1 + n)/(10 + n)) after n updates.

    Computed as a maximum: 1 - 0.9999 in float32 has a relative error of 2e-4.
    """
    return jnp.maximum(1 - decay, 9 / (10 + updates))

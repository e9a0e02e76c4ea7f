"""Noise levels: their range, how training draws them, and how its step shrinks.

Everything is indexed by i in [0, 1], on which the levels follow the curve of Karras et al. 2022.
"""

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np

from m2l_jax.interface.errors import InputError

_GRID_CELLS = 8192


@dataclasses.dataclass(frozen=True)
class NoiseLevels:
    """The range of noise levels σ and the data's standard deviation that go with a model.

    Attributes:
      sigma_min: level at index 0, where the model is the identity.
      sigma_max: level at index 1, from which decoding starts.
      sigma_data: standard deviation of the (compressed) spectrograms.
      rho: curvature of the index-to-level curve.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    sigma_data: float = 0.5
    rho: float = 7.0

    def __post_init__(self):
        if not 0 < self.sigma_min < self.sigma_max:
            raise InputError(
                f'noise.sigma_min={self.sigma_min} must be between 0 and sigma_max={self.sigma_max}'
            )

    def sigma(self, index: jax.Array) -> jax.Array:
        """σ(i), any shape. Karras et al. 2022, eq. 5, with i running upwards."""
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (low + index * (high - low)) ** self.rho

    def index(self, sigma: jax.Array) -> jax.Array:
        """i(σ), any shape: the inverse of `sigma`."""
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (sigma ** (1 / self.rho) - low) / (high - low)


class _Density:
    def check(self, levels: NoiseLevels) -> None:
        """Raises an InputError if the density does not fit the levels."""


@dataclasses.dataclass(frozen=True)
class IndexDensity(_Density):
    """Density of the noise index i in training: ∝ N(log σ(i); mean, std²) on [0, 1], the paper's.

    It is over the *index*, not over log σ: the levels drawn are not log-normal.
    """

    log_sigma_mean: float
    log_sigma_std: float
    name: str = 'index'

    def __post_init__(self):
        if self.log_sigma_std <= 0:
            raise InputError(f'density.log_sigma_std={self.log_sigma_std} must be above 0')

    def sample(self, key: jax.Array, levels: NoiseLevels, shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws indices of the given shape, by the inverse of the cumulative distribution."""
        return self.quantile(jax.random.uniform(key, shape), levels)

    def quantile(self, part: jax.Array, levels: NoiseLevels) -> jax.Array:
        """The index below which a part of all draws lies, any shape."""
        grid = np.linspace(0.0, 1.0, _GRID_CELLS + 1)
        deviation = (np.log(levels.sigma(grid)) - self.log_sigma_mean) / self.log_sigma_std
        density = np.exp(-0.5 * deviation**2)
        cells = (density[1:] + density[:-1]) / 2
        cumulative = np.concatenate([[0.0], np.cumsum(cells) / np.sum(cells)])
        return jnp.interp(part, jnp.asarray(cumulative), jnp.asarray(grid))


@dataclasses.dataclass(frozen=True)
class MixtureDensity(IndexDensity):
    """The paper's density and a share s of draws at high levels, from which decoding starts.

    p(i) = (1 - s)·p_paper(i) + s·U(i; i(σ_high), 1). The second part is uniform in the index
    because student and teacher are Δ apart in it: what the model knows at one level passes to the
    next in equal steps of it, up to index 1. With the paper's constants, 7.2 % of p_paper's draws
    lie above σ = 10, and 26 % of the mixture's by default.

    Attributes:
      high_share: s, the probability of the second part, to which p_paper's tail comes on top.
      high_sigma: σ_high, the lowest level of the second part.
    """

    name: str = 'mixture'
    high_share: float = 0.2
    high_sigma: float = 10.0

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.high_share < 1:
            raise InputError(f'density.high_share={self.high_share} must be above 0 and below 1')
        if self.high_sigma <= 0:
            raise InputError(f'density.high_sigma={self.high_sigma} must be above 0')

    def check(self, levels: NoiseLevels) -> None:
        """Raises an InputError if `high_sigma` is not within the levels."""
        if not levels.sigma_min <= self.high_sigma < levels.sigma_max:
            raise InputError(
                f'density.high_sigma={self.high_sigma} must be from noise.sigma_min='
                f'{levels.sigma_min} to below sigma_max={levels.sigma_max}'
            )

    def sample(self, key: jax.Array, levels: NoiseLevels, shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws indices of the given shape; the lowest s of one uniform draw give the high part."""
        uniform, share = jax.random.uniform(key, shape), self.high_share
        lowest = levels.index(self.high_sigma)
        high = lowest + uniform / share * (1 - lowest)
        return jnp.where(
            uniform < share, high, self.quantile((uniform - share) / (1 - share), levels)
        )


@dataclasses.dataclass(frozen=True)
class LogNormalDensity(IndexDensity):
    """Log-normal σ within the levels' range (Song & Dhariwal 2023, eq. 10, without its grid)."""

    name: str = 'lognormal'

    def sample(self, key: jax.Array, levels: NoiseLevels, shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws indices of the given shape: log σ is normal, truncated to the range."""
        bounds = np.log([levels.sigma_min, levels.sigma_max])
        low, high = (bounds - self.log_sigma_mean) / self.log_sigma_std
        normal = jax.random.truncated_normal(key, low, high, shape)
        index = levels.index(jnp.exp(self.log_sigma_mean + self.log_sigma_std * normal))
        return jnp.clip(index, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class UniformDensity(_Density):
    """All noise indices are equally likely (Song et al. 2023, algorithm 3)."""

    name: str = 'uniform'

    def sample(self, key: jax.Array, levels: NoiseLevels, shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws indices of the given shape."""
        return jax.random.uniform(key, shape)


DENSITIES: Mapping[str, type] = MappingProxyType(
    {
        'index': IndexDensity,
        'lognormal': LogNormalDensity,
        'mixture': MixtureDensity,
        'uniform': UniformDensity,
    }
)


class _Schedule:
    def place(self, index: jax.Array, delta: jax.Array) -> jax.Array:
        """The student's indices for drawn ones, any shape, at a Δ: the same ones."""
        return index

    def denoises(self, progress: jax.Array) -> jax.Array | None:
        """True while Δ = 1 makes the teacher the identity; None for schedules without that."""
        return None


@dataclasses.dataclass(frozen=True)
class StepSchedule(_Schedule):
    """The distance Δ between student and teacher index: 10^-e, e linear over training.

    Music2Latent's continuous noise schedule, section 3.3: exponent 1 at the start, 3 at the end.
    """

    start_exponent: float
    end_exponent: float
    name: str = 'exponential'

    def delta(self, progress: jax.Array) -> jax.Array:
        """Δ at `progress` in [0, 1] of the training."""
        exponent = self.start_exponent + progress * (self.end_exponent - self.start_exponent)
        return 10.0**-exponent


@dataclasses.dataclass(frozen=True)
class DenoisingSchedule(StepSchedule):
    """Δ = 1 in a first part of the training, then the exponential schedule over the rest.

    Geng et al. 2024 (arXiv 2406.14548) tune a trained denoiser, the case of a consistency model
    whose teacher is at the lowest level; here training begins with it. At σ_min the model is the
    identity: the loss is the distance of f(x_σ) from x + σ_min·noise, and needs no teacher's pass.

    Attributes:
      denoising_part: of the training, below 1.
    """

    name: str = 'denoising'
    denoising_part: float = 0.25

    def __post_init__(self):
        if not 0 < self.denoising_part < 1:
            raise InputError(
                f'schedule.denoising_part={self.denoising_part} must be above 0 and below 1'
            )

    def delta(self, progress: jax.Array) -> jax.Array:
        """Δ at `progress` in [0, 1] of the training."""
        rest = (progress - self.denoising_part) / (1 - self.denoising_part)
        return jnp.where(self.denoises(progress), 1.0, super().delta(rest))

    def denoises(self, progress: jax.Array) -> jax.Array:
        """True in the first part, in which the teacher is the identity."""
        return progress < self.denoising_part


@dataclasses.dataclass(frozen=True)
class DoublingSchedule(_Schedule):
    """Δ = 1/N, N doubling from `start_steps` to `end_steps` (Song & Dhariwal 2023, section 3.4)."""

    start_steps: int = 10
    end_steps: int = 1280
    name: str = 'doubling'

    def __post_init__(self):
        if not 1 <= self.start_steps <= self.end_steps:
            raise InputError(
                f'schedule.start_steps={self.start_steps} must be from 1 to '
                f'end_steps={self.end_steps}'
            )

    def delta(self, progress: jax.Array) -> jax.Array:
        """Δ at `progress` in [0, 1] of the training, of which each N gets an equal part."""
        stages = math.floor(math.log2(self.end_steps / self.start_steps)) + 1
        doublings = jnp.floor(progress * stages)
        return 1.0 / jnp.minimum(self.start_steps * 2.0**doublings, self.end_steps)


@dataclasses.dataclass(frozen=True)
class DiscreteSchedule(DoublingSchedule):
    """The doubling schedule on the N + 1 indices 0, 1/N, … 1 alone, as in Song & Dhariwal 2023.

    Student and teacher are neighbours; index 0 is the teacher's alone.
    """

    name: str = 'discrete'

    def place(self, index: jax.Array, delta: jax.Array) -> jax.Array:
        """The student's indices for drawn ones, at a Δ: the next multiple of Δ above."""
        return jnp.clip(jnp.ceil(index / delta), 1.0, jnp.round(1 / delta)) * delta


SCHEDULES: Mapping[str, type] = MappingProxyType(
    {
        'exponential': StepSchedule,
        'denoising': DenoisingSchedule,
        'doubling': DoublingSchedule,
        'discrete': DiscreteSchedule,
    }
)


def teacher_index(index: jax.Array, delta: jax.Array) -> jax.Array:
    """i' = max(i - Δ, 0), the teacher's index for the student's i."""
    return jnp.maximum(index - delta, 0.0)

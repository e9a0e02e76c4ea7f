"""The whole of a training run's settings, typed; `configs/` holds their values."""

import dataclasses

from m2l_jax.data.index import DataConfig
from m2l_jax.interface.errors import InputError
from m2l_jax.model.config import ModelConfig
from m2l_jax.training.state import OptimizerConfig
from m2l_jax.training.step import ConsistencyConfig


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How long to train, and how often to write.

    Attributes:
      steps: optimiser steps in all; the schedules stretch over them.
      log_every: steps between two rows of metrics.
      checkpoint_every: steps between two checkpoints; the last step is always saved.
      keep_checkpoints: how many of the newest are kept.
    """

    steps: int
    log_every: int
    checkpoint_every: int
    keep_checkpoints: int

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise InputError(
                    f'config.train.{field.name}={getattr(self, field.name)} must be at least 1'
                )


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides a run: the same settings give the same numbers."""

    seed: int
    model: ModelConfig
    consistency: ConsistencyConfig
    optimizer: OptimizerConfig
    data: DataConfig
    train: LoopConfig

    def __post_init__(self):
        if self.seed < 0:
            raise InputError(f'config.seed={self.seed} must be at least 0')
        multiple = self.model.time_downsampling
        if self.data.crop_frames % multiple:
            raise InputError(
                f'config.data.crop_frames={self.data.crop_frames} must be a multiple of {multiple}'
            )

    @property
    def crop_samples(self) -> int:
        """Samples of a crop."""
        return self.model.spectrogram.samples(self.data.crop_frames)

    @property
    def batch_seconds(self) -> float:
        """Seconds of audio in a batch."""
        return self.data.batch_size * self.crop_samples / self.model.spectrogram.sample_rate

"""All settings of a training run, typed; `configs/` holds their values."""

import dataclasses
import operator
from typing import Annotated, Any

from m2l_jax.consistency.config import ConsistencyConfig
from m2l_jax.data.config import DataConfig
from m2l_jax.evaluation.held_out import EvaluationConfig
from m2l_jax.evaluation.metrics import METRICS
from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import FROZEN
from m2l_jax.model.config import ModelConfig
from m2l_jax.training.state import OPTIMIZERS, OptimizerConfig

# Older versions refuse fields that they don't know: checkpoints hold these only where they are set.
_NOT_ALWAYS_RECORDED = (
    ('', 'freeze'),
    ('consistency', 'unquantised'),
    ('optimizer', 'ema_profiles'),
)

# Named in the log where they differ from these.
_PAPERS_CHOICES = {
    'optimizer.name': 'radam',
    'consistency.density.name': 'index',
    'consistency.schedule.name': 'exponential',
    'model.bottleneck': 'tanh',
    'model.channels': 2,
    'model.stereo': 'left_right',
    'init_from': '',
    'freeze': '',
}


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """Length of the training, and the steps at which it writes.

    Attributes:
      steps: in all; the schedules stretch over them.
      log_every: steps between two rows of metrics.
      checkpoint_every: steps between two checkpoints; the last step is always saved.
      keep_checkpoints: number of the newest checkpoints to keep.
      accumulate: parts in which each device takes its rows, to save memory.
      stop_after_skipped: updates skipped in a row, because loss, gradient or update is not finite,
        after which training stops.
      best_metric: of the held-out clips, by which the best checkpoint is kept too: 'si_sdr',
        'lsd', 'mr_stft' or 'mel'.
      shard_optimizer: divide the optimiser's moments and the average among the devices, to save
        memory.
    """

    steps: int
    log_every: int
    checkpoint_every: int
    keep_checkpoints: int
    accumulate: int
    stop_after_skipped: int
    best_metric: str
    shard_optimizer: bool = False  # missing from old checkpoints

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if type(value) is int and value < 1:
                raise InputError(f'config.train.{name}={value} must be at least 1')
        if self.best_metric not in METRICS:
            raise InputError(
                f'config.train.best_metric={self.best_metric!r} must be one of {", ".join(METRICS)}'
            )


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """All settings of a run; the same settings give the same numbers.

    The fields of other types are sections; see these classes.

    Attributes:
      seed: of all random draws.
      init_from: model to start from: a training run's folder, a `.pt` or `.safetensors` file,
        hf://user/model, or the name of a model that comes with the package; '' for random
        parameters.
      freeze: the part of that model that stays as it is: 'encoder', so that latents of the model
        stay valid; or 'decoder', all that makes audio of latents; '' trains both.
    """

    seed: int
    model: ModelConfig
    consistency: ConsistencyConfig
    optimizer: Annotated[OptimizerConfig, OPTIMIZERS]
    data: DataConfig
    train: LoopConfig
    evaluation: EvaluationConfig
    init_from: str = ''  # missing from old checkpoints
    freeze: str = ''  # missing from old checkpoints

    def __post_init__(self):
        if self.freeze not in FROZEN:
            raise InputError(
                f'config.freeze={self.freeze!r} must be one of {", ".join(filter(None, FROZEN))}, '
                "or '' to train all"
            )
        warmup, steps = self.optimizer.warmup_steps, self.train.steps
        if not 0 <= warmup < steps:
            raise InputError(
                f'config.optimizer.warmup_steps={warmup} must be below config.train.steps={steps}'
            )
        least = self.model.channels + self.model.audio_channels
        if self.consistency.auxiliary.weight and self.model.base_channels < least:
            raise InputError(
                f'config.model.base_channels={self.model.base_channels} must be at least {least} '
                'for config.consistency.auxiliary.weight: a channel for each plane and magnitude'
            )
        if not 0 <= self.seed < 1 << 32:  # JAX's keys take no more bits
            raise InputError(f'config.seed={self.seed} must be at least 0 and below 2^32')
        if self.consistency.unquantised and not self.model.is_discrete:
            raise InputError(
                f'config.consistency.unquantised={self.consistency.unquantised} needs '
                "config.model.bottleneck='fsq': no latents are rounded without it"
            )
        self.consistency.density.check(self.model.noise)
        multiple = self.model.time_downsampling
        if self.data.crop_frames % multiple:
            raise InputError(
                f'config.data.crop_frames={self.data.crop_frames} must be a multiple of {multiple}'
            )

    def record(self, latents_of: tuple[str, ...] = ()) -> dict[str, Any]:
        """Fields as checkpoints hold them, for JSON; `latents_of` is the model's."""
        model = dataclasses.replace(self.model, latents_of=latents_of)
        fields = {**dataclasses.asdict(self), 'model': model.record()}
        for section, name in _NOT_ALWAYS_RECORDED:
            holder = fields[section] if section else fields
            if not holder[name]:
                del holder[name]
        return fields

    @property
    def other_choices(self) -> dict[str, Any]:
        """Choices that differ from the paper's, by field, e.g. `optimizer.name`."""
        values = {name: operator.attrgetter(name)(self) for name in _PAPERS_CHOICES}
        return {name: value for name, value in values.items() if value != _PAPERS_CHOICES[name]}

    @property
    def crop_samples(self) -> int:
        """Samples of a crop."""
        return self.model.spectrogram.samples(self.data.crop_frames)

    @property
    def batch_seconds(self) -> float:
        """Seconds of audio in a batch."""
        return self.data.batch_size * self.crop_samples / self.model.spectrogram.sample_rate

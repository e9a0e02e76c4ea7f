"""The training of a model, as the folder of its run records it."""

import dataclasses
import logging
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from m2l_jax.checkpoint.store import read_settings
from m2l_jax.codec.weights import is_packaged
from m2l_jax.interface.settings import build
from m2l_jax.torch_weights import hub
from m2l_jax.training.config import TrainingConfig

# They may name private folders; what a model was trained on is for its author to say.
_PRIVATE = ('corpus', 'data.path', 'data.mix', 'evaluation.path', 'init_from')

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class History:
    """A training run up to a checkpoint.

    Attributes:
      checkpoint: its folder.
      steps: trained.
      settings: of the run.
      fields: the same by their names in the config, without those that name folders.
      curves: by name and step, up to the checkpoint; empty without TensorBoard's files.
    """

    checkpoint: pathlib.Path
    steps: int
    settings: TrainingConfig
    fields: Mapping[str, Any]
    curves: Mapping[str, Mapping[int, float]]

    @property
    def audio_hours(self) -> float:
        """Hours of the crops seen, the repeated ones too."""
        return self.steps * self.settings.batch_seconds / 3600

    @property
    def hours(self) -> float | None:
        """Hours that the steps took, without pauses and evaluations; None without curves."""
        speeds = self.curves.get('steps_per_second', {})
        if not speeds:
            return None
        begins = [0, *speeds][:-1]
        pairs = zip(begins, speeds.items(), strict=True)
        return sum((step - begin) / speed for begin, (step, speed) in pairs) / 3600

    @property
    def base(self) -> str | None:
        """The model of the Hub that the training started from, 'user/model'."""
        source = self.settings.init_from
        return hub.parse(source).repository if hub.is_address(source) else None

    @property
    def origin(self) -> str:
        """The model that the training started from; no name of a private file."""
        source = self.settings.init_from
        if is_packaged(source):
            return f'{source}, the model that m2l_jax comes with'
        return (self.base or 'another model') if source else 'random parameters'


def read_history(path: str) -> History | None:
    """Reads a training run, or one of its checkpoints; None for a model alone.

    Raises:
      InputError: if there is no checkpoint, or its settings cannot be read.
    """
    workdir, step, saved = read_settings(path)
    if 'train' not in saved:  # a converted model
        return None
    fields = dict(_flatten(saved))
    saved.pop('corpus', None)
    settings = build(TrainingConfig, saved, f'{path}: config')
    checkpoint = workdir / 'checkpoints' / str(step)
    return History(checkpoint, step, settings, fields, _read_curves(workdir, step))


def _flatten(fields: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if prefix + name in _PRIVATE:
            continue
        if isinstance(value, Mapping):
            yield from _flatten(value, f'{prefix}{name}.')
        else:
            yield prefix + name, value


def _read_curves(workdir: pathlib.Path, last: int) -> dict[str, dict[int, float]]:
    try:
        from m2l_jax.training.curves import read_curves
    except ModuleNotFoundError as error:
        _logger.warning(
            "the card has no curves and no hours of training: they need %s, pip install 'm2l-jax"
            "[train]'",
            error.name,
        )
        return {}
    kept = {
        name: {step: value for step, value in curve.items() if step <= last}
        for name, curve in read_curves(workdir).items()
    }
    return {name: curve for name, curve in kept.items() if curve}

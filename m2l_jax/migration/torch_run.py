"""Whole training runs in the PyTorch trainer's files."""

import dataclasses
import logging
import os
from collections.abc import Mapping
from typing import Any

from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import Params
from m2l_jax.model.config import ModelConfig
from m2l_jax.torch_weights import files, trainer
from m2l_jax.torch_weights.conversion import complete_config
from m2l_jax.torch_weights.names import unused_tensors
from m2l_jax.torch_weights.pickles import load_pickle
from m2l_jax.torch_weights.state_dict import from_state_dict, to_state_dict

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TorchRun:
    """A training run; parameters, their average and RAdam's moments are trees of NumPy arrays.

    Attributes:
      config: sizes of the model.
      step: number of batches.
      updates: number of RAdam's updates, fewer if mixed precision skipped some.
      b1, b2: RAdam's decay rates.
      ema_decay: of the average.
      params, ema_params: parameters and their moving average.
      first, second: moments of the gradient.
    """

    config: ModelConfig
    step: int
    updates: int
    b1: float
    b2: float
    ema_decay: float
    params: Params
    ema_params: Params
    first: Params
    second: Params


def read_run(
    path: str | os.PathLike[str], attention_heads: int | None = None
) -> TorchRun | tuple[ModelConfig, Params]:
    """Reads a checkpoint of the PyTorch trainer, or the model of a file without an optimiser.

    Args:
      path: the file.
      attention_heads: as of `load_torch_model`.

    Raises:
      InputError: if the file is unsafe or broken, or a part is missing or does not fit.
    """
    content = load_pickle(files.check_file(path))
    is_run = isinstance(content, Mapping) and trainer.OPTIMIZER in content
    tensors, config = files.tensors_in(content, path)
    config = complete_config(path, tensors, config, attention_heads)
    if not is_run:
        return config, from_state_dict(tensors, config)
    try:
        step = trainer.read_iteration(content)
        moments = trainer.read_moments(content, dict(unused_tensors(config)))
        average = trainer.read_average(content)
    except InputError as error:
        raise InputError(
            f'{path}: {error}; --nowith_training_state converts the model alone'
        ) from None
    _report(path, content, step, moments.updates, average.updates)
    return TorchRun(
        config,
        step,
        moments.updates,
        moments.b1,
        moments.b2,
        average.decay,
        *(
            from_state_dict(each, config)
            for each in (tensors, average.tensors, moments.first, moments.second)
        ),
    )


def _report(
    path: str | os.PathLike[str],
    content: Mapping[str, Any],
    step: int,
    updates: int,
    averaged: int | None,
) -> None:
    """Logs what has no counterpart here."""
    if not updates == averaged == step:
        _logger.warning(
            '%s counts %d iterations, %d updates of its parameters and %s of their average: rate, '
            'Δ and average go on by iterations, and each step here is an update',
            path,
            step,
            updates,
            averaged,
        )
    left_out = ', '.join(trainer.left_out(content))
    _logger.info('%s: left out, as of no use here: %s', path, left_out or 'nothing')


def write_run(
    path: str | os.PathLike[str],
    run: TorchRun,
    learning_rate: float,
    most_bytes: int | None = None,
) -> None:
    """Writes a `.pt` file that the PyTorch trainer goes on from.

    Args:
      path: the file.
      run: the run.
      learning_rate: of the optimiser; the trainer sets its own before each step.
      most_bytes: size limit of the file; None for none.

    Raises:
      InputError: for sizes that the package cannot build, or a file that cannot be written.
    """
    config = dataclasses.replace(run.config, dtype='float32', param_dtype='float32')
    tensors, average, first, second = (
        to_state_dict(tree, config) for tree in (run.params, run.ema_params, run.first, run.second)
    )
    for name, _ in unused_tensors(config):
        del first[name], second[name]
    moments = trainer.Moments(run.updates, run.b1, run.b2, first, second)
    beside = trainer.pack(average, moments, run.step, learning_rate, run.ema_decay)
    ordered = {name: tensors[name] for name in trainer.in_order(tensors)}
    files.write_tensors(path, ordered, config, most_bytes, beside)

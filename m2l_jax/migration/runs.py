"""Training runs from the PyTorch trainer's files, and back."""

import contextlib
import logging
import os
import pathlib
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from m2l_jax.checkpoint.store import CheckpointStore, new_store, read_settings, save_model
from m2l_jax.codec.weights import check_target, locate_weights
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.settings import build
from m2l_jax.migration.torch_run import TorchRun, read_run, write_run
from m2l_jax.model.autoencoder import Music2Latent, Params
from m2l_jax.torch_weights.files import SUFFIXES
from m2l_jax.training.config import TrainingConfig
from m2l_jax.training.state import (
    TrainState,
    make_optimizer,
    param_shapes,
    start_from,
    to_trees,
)

_logger = logging.getLogger(__name__)

_FLAG = '--with_training_state'


def convert_run(
    source: str,
    target: str | os.PathLike[str],
    config: ConfigDict,
    *,
    demanded: bool,
    attention_heads: int | None = None,
    storage: str = 'float32',
    most_bytes: int | None = None,
) -> int | None:
    """Converts a whole training run: a PyTorch trainer's file to a folder, or a folder to a file.

    Of a `.pt` file without a training state, the model is converted.

    Args:
      source, target, attention_heads, storage, most_bytes: as of `codec.weights.convert`.
      config: as of `save_run`.
      demanded: refuse a source without a training state.

    Returns:
      The number of parameters; None, and nothing done, unless `demanded`, for anything but a `.pt`
      file to a folder.

    Raises:
      InputError: for a target that cannot be written, or a source that is no such run.
    """
    is_file, path = check_target(target, storage, most_bytes), locate_weights(source)
    imports = path.suffix == '.pt' and not is_file
    exports = path.suffix not in SUFFIXES and pathlib.Path(target).suffix == '.pt'
    if not (imports or demanded):
        return None
    if not (imports or exports):
        raise InputError(f'{_FLAG} is of a folder to a .pt file, or of a .pt file to a folder')
    if exports:
        if storage != 'float32':
            raise InputError(f'{_FLAG} keeps float32: leave --storage={storage} out')
        return export_run(path, target, most_bytes)
    run = read_run(path, attention_heads)
    if not isinstance(run, TorchRun):
        if demanded:
            raise InputError(f'{source} holds no training state: convert it without {_FLAG}')
        save_model(target, *run)
        return _size(run[1])
    save_run(target, run, config)
    _logger.info('%s: goes on from step %d', target, run.step)
    return _size(run.params)


def save_run(workdir: str | os.PathLike[str], run: TorchRun, config: ConfigDict) -> None:
    """Writes a run into a folder, from which training goes on.

    Args:
      workdir: a folder without checkpoints.
      run: the run.
      config: of a training with RAdam; the settings that the run itself shows replace its own.

    Raises:
      InputError: if the folder holds checkpoints already, or cannot be written into.
    """
    config = ConfigDict(config.to_dict())
    config.model = run.config.record()
    config.optimizer.update(b1=run.b1, b2=run.b2, ema_decay=run.ema_decay)
    # What it was trained on isn't known; resuming names the change.
    config.data.path = config.data.path or 'unknown, as of a PyTorch run'
    settings = build(TrainingConfig, config)
    state = _stand_in(settings).replace(
        step=_count(run.step),
        skipped=_count(0),
        skipped_in_row=_count(0),
        params=run.params,
        ema_params=None,
    )
    state = state.replace(opt_state=_with_moments(state.opt_state, run))
    with new_store(workdir) as store:
        store.save(run.step, state, run.ema_params, settings.record(run.config.latents_of))


def export_run(
    source: str | os.PathLike[str], target: str | os.PathLike[str], most_bytes: int | None = None
) -> int:
    """Writes a run's newest checkpoint as a `.pt` file that the PyTorch trainer goes on from.

    Args:
      source: the run's folder, or that of one checkpoint.
      target: the file.
      most_bytes: size limit of the file; None for none.

    Returns:
      The number of parameters.

    Raises:
      InputError: for a model without a training state, another optimiser than RAdam, or a file
        that cannot be written.
    """
    workdir, step, recorded = read_settings(source)
    with contextlib.closing(CheckpointStore(workdir)) as store:
        if not store.has_state(step):
            raise InputError(
                f'{source} holds a model without the state of a training run: '
                f'convert it without {_FLAG}'
            )
        recorded.pop('corpus', None)
        settings = build(TrainingConfig, recorded, f'{source}: config')
        optimizer = settings.optimizer
        if optimizer.name != 'radam':
            raise InputError(
                f'{source} has the state of config.optimizer.name={optimizer.name}: the PyTorch '
                f'trainer goes on with radam alone: convert it without {_FLAG}'
            )
        # NumPy's, without memory: the checkpoint is read into arrays of their kind.
        stand_in = jax.tree.map(
            lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), _stand_in(settings)
        )
        state, average = store.restore(step, stand_in.replace(ema_params=None), stand_in.ema_params)
    adam = _part(state.opt_state, optax.ScaleByAdamState)
    run = TorchRun(
        config=settings.model,
        step=int(state.step),
        updates=int(adam.count),
        b1=optimizer.b1,
        b2=optimizer.b2,
        ema_decay=optimizer.ema_decay,
        params=state.params,
        ema_params=average,
        first=adam.mu,
        second=adam.nu,
    )
    write_run(target, run, optimizer.learning_rate, most_bytes)
    _logger.info('%s: step %d, %d updates', target, run.step, run.updates)
    return _size(run.params)


def _stand_in(settings: TrainingConfig) -> TrainState:
    """Shapes and types of a state as checkpoints hold it, as `ShapeDtypeStruct`s."""
    shapes = param_shapes(Music2Latent(settings.model))
    optimizer = make_optimizer(settings.optimizer, settings.train.steps)
    return jax.eval_shape(lambda params: to_trees(start_from(params, optimizer), shapes), shapes)


def _with_moments(opt_state: optax.OptState, run: TorchRun) -> optax.OptState:
    """The optimiser's state with a run's moments; its schedule goes by iterations."""

    def fill(part: Any) -> Any:
        if isinstance(part, optax.ScaleByAdamState):
            return optax.ScaleByAdamState(_count(run.updates), run.first, run.second)
        return optax.ScaleByScheduleState(_count(run.step))

    return jax.tree.map(fill, opt_state, is_leaf=_is_part)


def _part(opt_state: optax.OptState, kind: type) -> Any:
    parts = jax.tree.leaves(opt_state, is_leaf=_is_part)
    return next(part for part in parts if isinstance(part, kind))


def _is_part(part: Any) -> bool:
    return isinstance(part, optax.ScaleByAdamState | optax.ScaleByScheduleState)


def _count(number: int) -> np.ndarray:
    return np.asarray(number, np.int32)


def _size(params: Params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))

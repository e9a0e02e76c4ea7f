"""The state that training starts from: a fresh one, or that of the newest checkpoint."""

import dataclasses
import functools
import logging
import os
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from m2l_jax.checkpoint.store import CheckpointStore, holds_checkpoint
from m2l_jax.codec.weights import open_weights
from m2l_jax.consistency.keys import random_key
from m2l_jax.interface.devices import compute_once
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.settings import build, differences
from m2l_jax.model.autoencoder import Music2Latent, Params
from m2l_jax.model.config import ModelConfig
from m2l_jax.training import mesh as meshes
from m2l_jax.training.config import TrainingConfig
from m2l_jax.training.state import (
    TrainState,
    param_shapes,
    start_from,
    to_trees,
    to_vectors,
)

_logger = logging.getLogger(__name__)


def state_shapes(
    settings: TrainingConfig,
    model: Music2Latent,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
) -> TrainState:
    """The shapes of a state's vectors, spread over the mesh as the settings say."""
    shard, shapes = settings.train.shard_optimizer, param_shapes(model)
    size = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    if shard:
        size += -size % mesh.size
    state = jax.eval_shape(lambda params: start_from(params, optimizer, size), shapes)
    return meshes.laid_out(state, meshes.state_shardings(mesh, state, shard))


def stored_shapes(settings: TrainingConfig, model: Music2Latent, shapes: TrainState) -> TrainState:
    """The shapes of the same state as checkpoints hold it, in trees."""
    trees = jax.eval_shape(lambda state: to_trees(state, param_shapes(model)), shapes)
    mesh = shapes.step.sharding.mesh
    shard = settings.train.shard_optimizer
    return meshes.laid_out(trees, meshes.state_shardings(mesh, trees, shard))


def read_initial(settings: TrainingConfig, workdir: str | os.PathLike[str]) -> Params | None:
    """The parameters of `config.init_from`, as NumPy arrays; None without, and for resuming.

    Raises:
      InputError: if there is no such model, or it is of another size.
    """
    if not settings.init_from or holds_checkpoint(workdir):
        return None
    try:
        model, params = open_weights(settings.init_from)
    except InputError as error:
        raise InputError(f'config.init_from={settings.init_from}: {error}') from None
    changed = differences(model.config.defining, settings.model.defining, 'config.model')
    if changed:
        raise InputError(
            f'config.init_from={settings.init_from} is another model ({"; ".join(changed)}): '
            'give config.model its sizes, or start from another one'
        )
    return jax.tree.map(lambda leaf: np.asarray(leaf, settings.model.param_dtype), params)


def create_or_restore(
    settings: TrainingConfig,
    model: Music2Latent,
    optimizer: optax.GradientTransformation,
    shapes: TrainState,
    store: CheckpointStore,
    workdir: str | os.PathLike[str],
    corpus: str,
    initial: Params | None = None,
) -> TrainState:
    """The state to start from, with the shardings of its `shapes`.

    It is that of the newest checkpoint; without one, a fresh one of the `initial` parameters, or
    of random ones.

    Raises:
      InputError: if `workdir` holds a model of another size, or one without a state.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, shapes)
    step = store.latest_step()
    if step is None:
        start = functools.partial(start_from, optimizer=optimizer, size=shapes.params.size)
        if initial is None:
            key = random_key(settings.seed)
            state = compute_once(lambda: start(model.init_params(key)), shardings)
        else:
            state = jax.jit(start, out_shardings=shardings)(initial)
        _logger.info(
            'starting a model of %s parameters%s on %d devices',
            f'{sum(leaf.size for leaf in jax.tree.leaves(param_shapes(model))):,}',
            f' from {settings.init_from}' if initial is not None else '',
            len(state.step.sharding.device_set),
        )
        return state

    if not store.has_state(step):
        raise InputError(
            f'{workdir} holds a converted model without the state of a training run: '
            'choose another --workdir'
        )
    saved = store.read_config(step)
    if saved.pop('corpus', corpus) != corpus:
        _logger.warning(
            'the audio is not what %s was trained on up to step %d: files were added, removed or '
            'changed, and the crops from here on are others',
            workdir,
            step,
        )
    _check_resumable(settings, saved, workdir)
    _logger.info('resuming %s at step %d', workdir, step)
    stored = stored_shapes(settings, model, shapes)
    state, ema_params = store.restore(step, stored.replace(ema_params=None), stored.ema_params)
    to_state = jax.jit(lambda trees: to_vectors(trees, shapes), out_shardings=shardings)
    return to_state(state.replace(ema_params=ema_params))


def _check_resumable(
    settings: TrainingConfig, saved: dict[str, Any], workdir: str | os.PathLike[str]
) -> None:
    """Refuses another model or optimiser, and warns of other changed settings."""
    model = build(ModelConfig, saved['model'], f'{workdir}: config.model')
    # How the same model is computed may change.
    model = dataclasses.replace(model, dtype=settings.model.dtype, remat=settings.model.remat)
    changed = differences(model, settings.model, 'config.model')
    if changed:
        raise InputError(
            f'{workdir} holds a checkpoint of another model ({"; ".join(changed)}): '
            'choose another folder, or the config that it was trained with'
        )
    old = build(TrainingConfig, saved, f'{workdir}: config')
    if old.optimizer.name != settings.optimizer.name:
        raise InputError(
            f'{workdir} holds the state of config.optimizer.name={old.optimizer.name}, not of '
            f'{settings.optimizer.name}: choose another folder, with --config.init_from={workdir}'
        )
    for line in differences(old, settings):
        _logger.warning('resuming with another %s', line)

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
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.settings import build, differences
from m2l_jax.model.autoencoder import Music2Latent, Params
from m2l_jax.model.config import ModelConfig
from m2l_jax.training import mesh as meshes
from m2l_jax.training.config import TrainingConfig
from m2l_jax.training.state import TrainState, compute_once, create_state, start_from

_logger = logging.getLogger(__name__)


def state_shapes(
    settings: TrainingConfig,
    model: Music2Latent,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
) -> TrainState:
    """The shapes of a state's arrays, spread over the mesh as the settings say."""
    shapes = jax.eval_shape(lambda: create_state(model, optimizer, random_key(settings.seed)))
    shardings = meshes.state_shardings(mesh, shapes, settings.train.shard_optimizer)
    return meshes.laid_out(shapes, shardings)


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
    step = store.latest_step()
    if step is None:
        shardings = jax.tree.map(lambda leaf: leaf.sharding, shapes)
        if initial is None:
            key = random_key(settings.seed)
            state = compute_once(lambda: create_state(model, optimizer, key), shardings)
        else:
            start = functools.partial(start_from, optimizer=optimizer)
            state = jax.jit(start, out_shardings=shardings)(initial)
        size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        devices = len(state.step.sharding.device_set)
        origin = f' from {settings.init_from}' if initial is not None else ''
        _logger.info(
            'starting a model of %s parameters%s on %d devices', f'{size:,}', origin, devices
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
    without_ema, ema_params = store.restore(
        step, shapes.replace(ema_params=None), shapes.ema_params
    )
    return without_ema.replace(ema_params=ema_params)


def _check_resumable(
    settings: TrainingConfig, saved: dict[str, Any], workdir: str | os.PathLike[str]
) -> None:
    """Refuses to resume a model of another size; tells of other changed settings."""
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
    for line in differences(old, settings):
        _logger.warning('resuming with another %s', line)

"""The state that training starts from: a fresh one, or that of the newest checkpoint."""

import dataclasses
import functools
import logging
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from m2l_jax.checkpoint.store import CheckpointStore, holds_checkpoint
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.codec.weights import open_weights
from m2l_jax.consistency.keys import random_key
from m2l_jax.interface.devices import compute_once
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.settings import build, differences
from m2l_jax.model.autoencoder import FROZEN, Params
from m2l_jax.model.config import ModelConfig
from m2l_jax.training.config import TrainingConfig
from m2l_jax.training.setup import Setup, shardings
from m2l_jax.training.state import TrainState, start_from

_logger = logging.getLogger(__name__)


class Initial(NamedTuple):
    """A model to start from.

    Attributes:
      params: NumPy arrays.
      latents_of: ids of the models, itself first, whose latents it decodes.
    """

    params: Params
    latents_of: tuple[str, ...]


def read_initial(settings: TrainingConfig, workdir: str | os.PathLike[str]) -> Initial | None:
    """The model of `config.init_from`; None without, and for resuming.

    Raises:
      InputError: if there is no such model, or it is of another size; if none is named and a part
        of it is to be frozen.
    """
    if settings.model.latents_of:
        raise InputError('config.model.latents_of is noted by training itself: leave it out')
    if holds_checkpoint(workdir):
        return None
    if not settings.init_from:
        if settings.freeze:
            raise InputError(
                f'config.freeze={settings.freeze!r} would keep random parameters: name the model '
                'to start from with config.init_from'
            )
        return None
    try:
        model, params = open_weights(settings.init_from)
    except InputError as error:
        raise InputError(f'config.init_from={settings.init_from}: {error}') from None
    wanted = settings.model.defining
    # Bottlenecks have no parameters: a continuous model becomes a discrete one, or back.
    known = dataclasses.replace(
        model.config.defining, bottleneck=wanted.bottleneck, levels=wanted.levels
    )
    if changed := differences(known, wanted, 'config.model'):
        raise InputError(
            f'config.init_from={settings.init_from} is another model ({"; ".join(changed)}): '
            'give config.model its sizes, or start from another one'
        )
    dtype = settings.model.param_dtype
    if _rounds(dtype, [params[part] for part in FROZEN[settings.freeze]]):
        raise InputError(
            f'config.model.param_dtype={dtype} rounds the parameters of {settings.init_from} that '
            f'config.freeze={settings.freeze!r} keeps: use float32'
        )
    own_id = EncoderDecoder.from_params(model, params).model_id
    params = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), params)
    return Initial(params, (own_id, *model.config.latents_of))


def check_newest(
    settings: TrainingConfig, store: CheckpointStore, workdir: str | os.PathLike[str], corpus: str
) -> int | None:
    """The step of the newest checkpoint, to go on from; None for a fresh start.

    Args:
      settings: of the training; warns of changes.
      store, workdir: the checkpoints, and their folder.
      corpus: fingerprint of the audio.

    Raises:
      InputError: if `workdir` holds a model of another size, or one without a state.
    """
    step = store.latest_step()
    if step is None:
        return None
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
    return step


def find_latents_of(
    settings: TrainingConfig,
    store: CheckpointStore,
    step: int | None,
    of_initial: Sequence[str] | None,
) -> tuple[str, ...]:
    """The `ModelConfig.latents_of` of the model in training; none once its encoder trains.

    Args:
      settings: of the training.
      store, step: the checkpoint to go on from; see `check_newest`.
      of_initial: ids of the models, the initial one first, whose latents the initial one decodes.
    """
    if settings.freeze != 'encoder':
        return ()
    if step is None:
        return tuple(of_initial)
    return tuple(store.read_config(step)['model'].get('latents_of', ()))


def create_or_restore(
    setup: Setup, store: CheckpointStore, step: int | None, initial: Params | None = None
) -> TrainState:
    """The state of a checkpoint, or a fresh one without, laid out over the mesh.

    Args:
      setup: of the training.
      store: the checkpoints.
      step: of the checkpoint; see `check_newest`.
      initial: parameters of a fresh state; random ones by default.
    """
    if step is None:
        return _create(setup, initial)
    state, ema_params = store.restore(
        step, setup.stored.replace(ema_params=None), setup.stored.ema_params
    )
    return setup.from_stored(state.replace(ema_params=ema_params))


def _create(setup: Setup, initial: Params | None) -> TrainState:
    placed, size = shardings(setup.state), setup.state.params.size
    start = functools.partial(start_from, optimizer=setup.optimizer, size=size)
    if initial is None:
        key = random_key(setup.settings.seed)
        state = compute_once(lambda: start(setup.model.init_params(key)), placed)
    else:
        state = jax.jit(start, out_shardings=placed)(initial)
    _logger.info(
        'starting a model of %s parameters%s on %d devices',
        f'{sum(leaf.size for leaf in jax.tree.leaves(setup.params)):,}',
        '' if initial is None else f' from {setup.settings.init_from}',
        setup.mesh.size,
    )
    return state


def _check_resumable(
    settings: TrainingConfig, saved: dict[str, Any], workdir: str | os.PathLike[str]
) -> None:
    """Refuses another model, optimiser or frozen part, and warns of other changed settings."""
    latents_of = saved['model'].pop('latents_of', ())  # no setting
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
    if old.optimizer.ema_profiles != settings.optimizer.ema_profiles:
        raise InputError(
            f'{workdir} keeps the averages of config.optimizer.ema_profiles='
            f'{old.optimizer.ema_profiles}, which begin with the first step, not of '
            f'{settings.optimizer.ema_profiles}: keep that setting, or choose another folder'
        )
    if settings.freeze not in ('', old.freeze):  # its average lags behind the parameters
        raise InputError(
            f'{workdir} was trained with config.freeze={old.freeze!r}, not {settings.freeze!r}: '
            f'choose another folder, with --config.init_from={workdir}'
        )
    for line in differences(old, settings):
        _logger.warning('resuming with another %s', line)
    if latents_of and settings.freeze != 'encoder':
        _logger.warning(
            'the encoder trains from here on: the model no longer decodes latents of %s',
            ', '.join(latents_of),
        )


def _rounds(dtype: str, tree: Any) -> bool:
    """True if a type cannot hold all numbers of a tree."""
    leaves = [np.asarray(leaf, np.float32) for leaf in jax.tree.leaves(tree)]
    return any(not np.array_equal(leaf, leaf.astype(dtype).astype(np.float32)) for leaf in leaves)

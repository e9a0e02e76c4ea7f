"""A training run on its way to another machine: its newest checkpoint and its curves.

In full, four numbers a parameter (parameters, average, two moments) make 16 bytes. What is carried
lightly is the average alone, in float16: 2 bytes. The parameters go on from the average, and RAdam
from no moments, whose variance it knows how to warm up; steps, crops and schedules go on.
"""

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import optax
import safetensors.numpy

from m2l_jax.checkpoint.store import CheckpointStore, new_store
from m2l_jax.consistency.keys import random_key
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.json_files import to_json
from m2l_jax.interface.paths import new_folder
from m2l_jax.interface.settings import build
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.torch_weights.halving import to_float16
from m2l_jax.training.config import TrainingConfig
from m2l_jax.training.curves import EventFile, read_curves
from m2l_jax.training.state import (
    TrainState,
    create_state,
    make_optimizer,
    param_shapes,
    to_trees,
)

_AVERAGE = 'ema_params/'
_CURVES = 'curves'
_CARRIED = '.carried'


def pack(workdir: str | os.PathLike[str], form: str) -> tuple[bytes, dict[str, Any]]:
    """The newest checkpoint of a training run, and its curves; no audio or pictures.

    Args:
      workdir: the run's folder.
      form: 'exact', with which training goes on to the last bit, or 'light'.

    Returns:
      Content, a safetensors file, and what else `unpack` needs, as JSON takes it.

    Raises:
      InputError: if there is no state to go on from, or the light form cannot hold the average.
    """
    folder = pathlib.Path(workdir)
    if not (folder / 'checkpoints').is_dir():
        raise InputError(f'{workdir} holds no checkpoints: pass the --workdir of a training run')
    with contextlib.closing(CheckpointStore(folder)) as store:
        step = store.latest_step()
        if step is None or not store.has_state(step):
            raise InputError(f'{workdir} holds no complete checkpoint that training can go on from')
        config = store.read_config(step)
        shapes = _state_shapes(config, f'{workdir}: config')
        stand_ins = jax.tree.map(
            lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape),  # no memory
            shapes,
        )
        without_average, average = store.restore(
            step, stand_ins.replace(ema_params=None), stand_ins.ema_params
        )
    kept = _named(_kept(without_average.replace(ema_params=average), form))
    if form == 'light':
        large = {name: kept[name] for name in kept if name.startswith(_AVERAGE)}
        kept |= to_float16(large, mend='pack the run in the form exact')
    kept[_CURVES] = np.frombuffer(to_json(read_curves(folder), None).encode(), np.uint8)
    return safetensors.numpy.save(kept), {'form': form, 'step': step, 'config': config}


def unpack(content: bytes, about: dict[str, Any], workdir: str | os.PathLike[str]) -> None:
    """Makes the folder of a training run, which the same config then goes on with.

    Args:
      content, about: what `pack` returned.
      workdir: the folder, without checkpoints; made if missing.

    Raises:
      InputError: if it holds checkpoints already, or what is carried is of another version.
    """
    arrays = safetensors.numpy.load(content)
    state = _complete(arrays, about['form'], _state_shapes(about['config'], 'what is carried'))
    curves = json.loads(arrays[_CURVES].tobytes())
    with new_folder(workdir) as folder, _written(folder, curves), new_store(folder) as store:
        average = state.ema_params
        store.save(about['step'], state.replace(ema_params=None), average, about['config'])


@contextlib.contextmanager
def _written(folder: pathlib.Path, curves: dict[str, dict[str, float | None]]) -> Iterator[None]:
    """Writes a TensorBoard file, for the run's own files to go on from; it goes after an error."""
    before = set(folder.glob(f'*{_CARRIED}'))
    try:
        with contextlib.closing(EventFile(folder, _CARRIED)) as events:
            for name, curve in curves.items():
                for step, value in curve.items():
                    events.add_scalars(int(step), {name: math.nan if value is None else value})
        yield
    except BaseException:
        for path in set(folder.glob(f'*{_CARRIED}')) - before:
            path.unlink()
        raise


def _state_shapes(config: dict[str, Any], where: str) -> TrainState:
    """Shapes and types of the state of a run with these settings."""
    settings = build(
        TrainingConfig, {name: config[name] for name in config if name != 'corpus'}, where
    )
    model = Music2Latent(settings.model)
    optimizer = make_optimizer(settings.optimizer, settings.train.steps)
    state = jax.eval_shape(lambda: create_state(model, optimizer, random_key(0)))
    return jax.eval_shape(lambda state: to_trees(state, param_shapes(model)), state)


def _kept(state: TrainState, form: str) -> TrainState:
    """The part of a state that is carried, with None for the rest."""
    if form == 'exact':
        return state
    opt_state = jax.tree.map(
        lambda node: None if _has_moments(node) else node, state.opt_state, is_leaf=_has_moments
    )
    return state.replace(params=None, opt_state=opt_state)


def _complete(arrays: dict[str, np.ndarray], form: str, shapes: TrainState) -> TrainState:
    """The inverse of `_kept`, with what was left out begun anew."""

    def fill(path: Any, leaf: Any) -> np.ndarray:
        array = arrays.get(_name(path))
        if array is None or array.shape != leaf.shape:
            raise InputError(
                f'what is carried has no {_name(path)} of shape {leaf.shape}: it was packed by '
                'another version of m2l_jax'
            )
        return array.astype(leaf.dtype)

    state = jax.tree_util.tree_map_with_path(fill, _kept(shapes, form))
    if form == 'exact':
        return state
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes.opt_state)
    opt_state = jax.tree.map(
        lambda node, kept: node if _has_moments(node) else kept,
        zeros,
        state.opt_state,
        is_leaf=_has_moments,
    )
    return state.replace(params=state.ema_params, opt_state=opt_state)


def _has_moments(node: Any) -> bool:
    """Whether a part of the optimiser's state is RAdam's: moments, and how many made them."""
    return isinstance(node, optax.ScaleByAdamState)


def _named(state: TrainState) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {_name(path): np.asarray(leaf) for path, leaf in leaves}


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator='/')

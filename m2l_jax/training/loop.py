"""Training from a config to a checkpoint."""

import contextlib
import dataclasses
import logging
import math
import os
from typing import Any

import jax
import ml_collections

from m2l_jax.checkpoint.store import CheckpointStore
from m2l_jax.data import index
from m2l_jax.data.pipeline import read_batches
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import make_folder
from m2l_jax.interface.settings import build, differences
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.model.config import ModelConfig
from m2l_jax.training import mesh as meshes
from m2l_jax.training.config import TrainingConfig
from m2l_jax.training.monitor import Monitor
from m2l_jax.training.state import (
    TrainState,
    compute_once,
    create_state,
    learning_rate_schedule,
    make_optimizer,
)
from m2l_jax.training.step import Metrics, TrainStep, make_train_step

_logger = logging.getLogger(__name__)


def train_and_evaluate(
    config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]
) -> TrainState:
    """Trains, or goes on where the newest checkpoint in `workdir` ends; returns the final state.

    Args:
      config: the fields of `TrainingConfig`; see `configs/default.py`.
      workdir: folder for checkpoints and TensorBoard files; made if missing.

    Raises:
      InputError: for a mistake in config, data or workdir, before the first step; later, if the
        loss is no longer finite or the data has become unusable.
    """
    settings = build(TrainingConfig, config)
    mesh = meshes.make_mesh()
    meshes.local_rows(settings.data.batch_size, mesh)  # refuses a batch that cannot be divided
    learning_rate = learning_rate_schedule(settings.optimizer, settings.train.steps)
    reader = open_corpus(settings)
    model = Music2Latent(settings.model)
    optimizer = make_optimizer(settings.optimizer, settings.train.steps)
    train_step = make_train_step(
        model,
        settings.consistency,
        optimizer,
        learning_rate,
        settings.optimizer.ema_decay,
        settings.train.steps,
        settings.seed,
        mesh,
    )

    store = CheckpointStore(make_folder(workdir), settings.train.keep_checkpoints)
    with contextlib.closing(store):  # also when it ends early: a save may be under way
        state = _create_or_restore(settings, model, optimizer, mesh, store, workdir)
        state = _run_steps(settings, state, train_step, reader, mesh, store, workdir)
    if reader.reported:
        _logger.warning('%d files had crops that could not be used', len(reader.reported))
    return state


def _run_steps(
    settings: TrainingConfig,
    state: TrainState,
    train_step: TrainStep,
    reader: index.CropReader,
    mesh: jax.sharding.Mesh,
    store: CheckpointStore,
    workdir: str | os.PathLike[str],
) -> TrainState:
    """From the state's step to the last, with metrics and checkpoints on the way."""
    rows = meshes.local_rows(settings.data.batch_size, mesh)
    loop = settings.train
    first = int(state.step)
    steps = range(first, loop.steps)
    batches = read_batches(reader, settings.data, settings.model.spectrogram, steps, rows)
    monitor = Monitor(workdir, first, loop.steps, loop.log_every, settings.batch_seconds)
    with contextlib.closing(monitor):
        for step, batch in zip(steps, batches, strict=True):
            state, metrics = train_step(state, meshes.to_global_batch(batch, mesh))
            done = step + 1
            monitor.after_step(done, metrics)
            if done % loop.checkpoint_every == 0 or done == loop.steps:
                _save(store, done, state, metrics, settings)
    return state


def open_corpus(settings: TrainingConfig) -> index.CropReader:
    """Scans the data, reports what is skipped, and makes sure that there is a crop to train on."""
    spectrogram = settings.model.spectrogram
    corpus = index.scan(settings.data.path, spectrogram.sample_rate, settings.crop_samples)
    _logger.info('%s', corpus.describe())
    for _, reason in corpus.skipped:
        _logger.warning('skipping %s', reason)
    reader = index.CropReader(corpus, settings.seed, settings.data.min_rms)
    reader.read(0, 0)
    return reader


def _create_or_restore(
    settings: TrainingConfig,
    model: Music2Latent,
    optimizer: Any,
    mesh: jax.sharding.Mesh,
    store: CheckpointStore,
    workdir: str | os.PathLike[str],
) -> TrainState:
    """The state to start from, on every device of the mesh."""
    sharding = meshes.replicated(mesh)

    def create() -> TrainState:
        return create_state(model, optimizer, jax.random.key(settings.seed))

    step = store.latest_step()
    if step is None:
        state = compute_once(create, sharding)
        size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        _logger.info('starting a model of %s parameters on %d devices', f'{size:,}', mesh.size)
        return state

    if not store.has_state(step):
        raise InputError(
            f'{workdir} holds a converted model without the state of a training run: '
            'choose another --workdir'
        )
    _check_resumable(settings, store.read_config(step), workdir)
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        jax.eval_shape(create),
    )
    _logger.info('resuming %s at step %d', workdir, step)
    without_ema, ema_params = store.restore(
        step, shapes.replace(ema_params=None), shapes.ema_params
    )
    return without_ema.replace(ema_params=ema_params)


def _check_resumable(
    settings: TrainingConfig, saved: dict[str, Any], workdir: str | os.PathLike[str]
) -> None:
    """Refuses to resume a model of another size; tells of other changed settings."""
    saved_model = build(ModelConfig, saved['model'], f'{workdir}: config.model')
    changed = differences(saved_model, settings.model, 'config.model')
    if changed:
        raise InputError(
            f'{workdir} holds a checkpoint of another model ({"; ".join(changed)}): '
            'choose another folder, or the config that it was trained with'
        )
    old = build(TrainingConfig, saved, f'{workdir}: config')
    for line in differences(dataclasses.replace(old, model=settings.model), settings):
        _logger.warning('resuming with another %s', line)


def _save(
    store: CheckpointStore,
    step: int,
    state: TrainState,
    metrics: Metrics,
    settings: TrainingConfig,
) -> None:
    """Writes a checkpoint, but never one of a training that has diverged."""
    loss = float(metrics['loss'])
    if not math.isfinite(loss):
        raise InputError(
            f'the loss is {loss} at step {step}: training has diverged; resume from the last '
            'checkpoint with a lower config.optimizer.learning_rate'
        )
    store.save(step, state.replace(ema_params=None), state.ema_params, settings)

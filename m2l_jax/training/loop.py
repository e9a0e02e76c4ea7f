"""Training, from a config to a checkpoint."""

import contextlib
import dataclasses
import functools
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from m2l_jax.checkpoint.store import CheckpointStore
from m2l_jax.evaluation.held_out import HeldOutClips
from m2l_jax.evaluation.metrics import METRICS
from m2l_jax.interface.errors import InputError, Interrupted
from m2l_jax.interface.paths import make_folder
from m2l_jax.interface.settings import build
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.model.ops import kernels_for
from m2l_jax.training import mesh as meshes
from m2l_jax.training.config import TrainingConfig
from m2l_jax.training.feed import Feed, open_feed
from m2l_jax.training.monitor import Monitor, Profiler
from m2l_jax.training.resume import create_or_restore, read_initial, state_shapes, stored_shapes
from m2l_jax.training.state import (
    TrainState,
    learning_rate_schedule,
    make_optimizer,
    param_shapes,
    to_trees,
    unravel,
)
from m2l_jax.training.step import CHECKED, Metrics, TrainStep, draw, make_train_step, step_key

_logger = logging.getLogger(__name__)

_NAMES_SHOWN = 16  # files of a batch, in an error


def train_and_evaluate(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike[str],
    minutes: float = math.inf,
    profile: str = '',
) -> TrainState:
    """Trains from the newest checkpoint in `workdir`, or from the start; returns the last state.

    Args:
      config: the fields of `TrainingConfig`; see `configs/default.py`.
      workdir: folder for checkpoints and TensorBoard files; made if missing.
      minutes: from now on, after which to stop as on SIGTERM.
      profile: steps to profile; see `monitor.Profiler`.

    Returns:
      The state as checkpoints hold it.

    Raises:
      InputError: for a mistake in config, data or workdir, before the first step; later, if too
        many updates in a row are skipped, the data have become unusable, or the disk is full.
      Interrupted: on SIGTERM or SIGINT, or at the end of its minutes, once the state is saved.
    """
    deadline = time.monotonic() + 60 * minutes
    Profiler(workdir, profile)  # checks the argument
    settings = build(TrainingConfig, config)
    meshes.check_started_alike(settings, workdir)
    mesh = meshes.make_mesh()
    meshes.connect(mesh)
    meshes.check_batch(settings.data.batch_size, settings.train.accumulate, mesh)
    model = Music2Latent(settings.model, kernels_for(mesh.devices.flat[0]))
    optimizer = make_optimizer(settings.optimizer, settings.train.steps)
    initial = meshes.read_once(lambda: read_initial(settings, workdir), param_shapes(model))
    held_out = _open_held_out(settings, model)
    shapes = state_shapes(settings, model, optimizer, mesh)
    feed = open_feed(settings, mesh, meshes.bytes_per_device(shapes))
    train_step = _make_step(settings, model, optimizer, mesh, feed)

    folder = make_folder(workdir)
    meshes.check_shared(folder)
    store = CheckpointStore(folder, settings.train.keep_checkpoints, _score(settings))
    stop = meshes.StopAgreement(mesh, deadline)
    with stop.watched(), _closed(store):
        state = create_or_restore(
            settings, model, optimizer, shapes, store, workdir, feed.fingerprint, initial
        )
        first, loop = int(state.step), settings.train
        monitor = Monitor(workdir, first, loop.steps, loop.log_every, settings.batch_seconds)
        profiler = Profiler(workdir, profile, first)
        stored = jax.tree.map(lambda leaf: leaf.sharding, stored_shapes(settings, model, shapes))
        trees = jax.jit(lambda state: to_trees(state, param_shapes(model)), out_shardings=stored)
        run = _Run(
            settings, mesh, train_step, trees, feed, store, monitor, profiler, held_out, stop
        )
        with contextlib.closing(monitor), contextlib.closing(profiler):
            state = run.go_on(state)
    if feed.reported:
        _logger.warning('%d files or records could not be used throughout', len(feed.reported))
    return trees(state)


@dataclasses.dataclass
class _Run:
    """The parts of a run; `trees` makes a state what checkpoints hold."""

    settings: TrainingConfig
    mesh: Mesh
    train_step: TrainStep
    trees: Callable[[TrainState], TrainState]
    feed: Feed
    store: CheckpointStore
    monitor: Monitor
    profiler: Profiler
    held_out: HeldOutClips | None
    stop: meshes.StopAgreement

    def go_on(self, state: TrainState) -> TrainState:
        """Trains to the last step, with metrics, evaluations and checkpoints."""
        loop = self.settings.train
        steps = range(int(state.step), loop.steps)
        previous: Metrics | None = None
        is_due = False
        if not steps.start:
            self._evaluate(0, state, is_last=False)  # the first point of the curves
        for step, data in zip(steps, self.feed.batches(steps), strict=True):
            self.profiler.before_step(step)
            state, metrics = self.train_step(state, data)
            done = step + 1
            self.profiler.after_step(done, metrics)
            if previous is not None:
                self._check_skipped(step, previous)
            previous = metrics
            self.monitor.after_step(done, metrics)
            is_last = done == loop.steps
            stops = self.stop.agreed() and not is_last
            # A stop does not wait for an evaluation.
            figures = None if stops else self._evaluate(done, state, is_last)
            is_due |= done % loop.checkpoint_every == 0 or figures is not None
            # While updates are skipped, training may have diverged: save once one is not.
            if is_last or stops or (is_due and not int(metrics['skipped_in_row'])):
                self._check_skipped(done, metrics)
                self._save(done, state, figures)
                is_due = False
            if stops:
                raise Interrupted(
                    f'stopped and saved at step {done} of {loop.steps}: run the same command '
                    'again to go on'
                )
        return state

    def _evaluate(self, done: int, state: TrainState, is_last: bool) -> dict[str, float] | None:
        """Figures of the held-out clips, in every process; None where no evaluation is due."""
        if self.held_out is None or (done % self.settings.evaluation.every and not is_last):
            return None
        figures = {}
        ema_params = self._average(state.ema_params)
        if jax.process_index() == 0:
            try:
                evaluation = self.held_out.evaluate(ema_params)
            except InputError as error:  # the model gives NaN
                _logger.warning('no evaluation at step %d: %s', done, error)
            else:
                self.monitor.write_evaluation(done, evaluation)
                figures = evaluation.scalars
        values = np.array([figures.get(f'evaluation/{name}', math.nan) for name in METRICS])
        # All must agree on which checkpoint is the best.
        values = multihost_utils.broadcast_one_to_all(values)
        return {name: float(value) for name, value in zip(METRICS, values, strict=True)}

    @functools.cached_property
    def _average(self) -> Callable[[jax.Array], Any]:
        """Makes of the average's vector the tree, whole on every device."""
        shapes = param_shapes(Music2Latent(self.settings.model))
        return jax.jit(
            lambda vector: unravel(vector, shapes), out_shardings=meshes.replicated(self.mesh)
        )

    def _save(self, done: int, state: TrainState, figures: Mapping[str, float] | None) -> None:
        trees = self.trees(state)
        self.store.save(
            done,
            trees.replace(ema_params=None),
            trees.ema_params,
            {
                **dataclasses.asdict(self.settings),
                'model': self.settings.model.record(),
                'corpus': self.feed.fingerprint,
            },
            figures,
        )

    def _check_skipped(self, done: int, metrics: Metrics) -> None:
        """Ends a training of which too many updates in a row were skipped, and says why."""
        skipped = int(metrics['skipped_in_row'])
        if skipped < self.settings.train.stop_after_skipped:
            return
        step, settings = done - 1, self.settings
        rows = jnp.arange(settings.data.batch_size)
        model = Music2Latent(settings.model)
        key = step_key(settings.seed, step)
        draws = draw(key, rows, (), model, settings.consistency.density)
        sigma = np.asarray(settings.model.noise.sigma(draws.index))
        checked = ', '.join(
            f'{name} {float(metrics[name]):.4g}' for name in CHECKED if name in metrics
        )
        raise InputError(
            f'{skipped} updates in a row were skipped, up to step {done}: not all of {checked} '
            f'are finite (sigma {sigma.min():.4g} to {sigma.max():.4g}, batch from '
            f'{_listed(self.feed.items(step))}): training has diverged; go on from the last '
            'checkpoint with a lower config.optimizer.learning_rate, or set '
            'config.optimizer.clip_norm'
        )


def _make_step(
    settings: TrainingConfig,
    model: Music2Latent,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    feed: Feed,
) -> TrainStep:
    return make_train_step(
        model,
        settings.consistency,
        optimizer,
        learning_rate_schedule(settings.optimizer, settings.train.steps),
        ema_decay=settings.optimizer.ema_decay,
        steps=settings.train.steps,
        seed=settings.seed,
        mesh=mesh,
        accumulate=settings.train.accumulate,
        data_specs=feed.specs,
        fetch=feed.fetch,
        shard_optimizer=settings.train.shard_optimizer,
    )


@contextlib.contextmanager
def _closed(store: CheckpointStore) -> Iterator[None]:
    """Closes the store at the end, also when training ends early: a save may be under way.

    But not after an error that may be this process's alone: closing would wait for the others.
    """
    try:
        yield
    except Exception as error:
        if jax.process_count() == 1 or isinstance(error, Interrupted):
            store.close()
        raise
    store.close()


def _open_held_out(settings: TrainingConfig, model: Music2Latent) -> HeldOutClips | None:
    if not settings.evaluation.path:
        return None
    consistency = settings.consistency
    return HeldOutClips(
        settings.evaluation,
        model,
        settings.data.crop_frames,
        consistency.huber_scale,
        float(consistency.schedule.delta(1.0)),
    )


def _score(settings: TrainingConfig) -> Callable[[Mapping[str, float]], float]:
    """Ranks a checkpoint by its figures, higher for better."""
    metric = settings.train.best_metric
    sign = 1 if METRICS[metric].higher_is_better else -1

    def score(figures: Mapping[str, float]) -> float:
        value = sign * figures.get(metric, math.nan)
        return -math.inf if math.isnan(value) else value

    return score


def _listed(items: list[str]) -> str:
    names = list(dict.fromkeys(items))
    more = f' and {len(names) - _NAMES_SHOWN} more' if len(names) > _NAMES_SHOWN else ''
    return ', '.join(names[:_NAMES_SHOWN]) + more

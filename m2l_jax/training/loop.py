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
from jax.experimental import multihost_utils

from m2l_jax.checkpoint.averages import drop_snapshots, write_snapshot
from m2l_jax.checkpoint.store import CheckpointStore
from m2l_jax.evaluation.held_out import HeldOutClips
from m2l_jax.evaluation.metrics import METRICS
from m2l_jax.interface.errors import InputError, Interrupted
from m2l_jax.interface.paths import make_folder
from m2l_jax.interface.settings import build
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.training import mesh as meshes
from m2l_jax.training.config import TrainingConfig
from m2l_jax.training.feed import Feed, open_feed
from m2l_jax.training.monitor import Monitor, Profiler
from m2l_jax.training.resume import (
    check_newest,
    create_or_restore,
    find_latents_of,
    read_initial,
)
from m2l_jax.training.setup import Setup
from m2l_jax.training.state import TrainState, profiles_of, unravel
from m2l_jax.training.step import CHECKED, Metrics, draw, step_key

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
        many updates in a row are skipped, the data become unusable, or the disk is full.
      Interrupted: on SIGTERM, on SIGINT or after `minutes`, once the state is saved.
    """
    deadline = time.monotonic() + 60 * minutes
    Profiler(workdir, profile)  # checks the argument
    settings = build(TrainingConfig, config)
    meshes.check_started_alike(settings, workdir)
    if jax.process_index() == 0 and (choices := settings.other_choices):
        named = ', '.join(f'{name}={value}' for name, value in choices.items())
        _logger.info("choices by name other than the paper's: %s", named)
    mesh = meshes.make_mesh()
    meshes.connect(mesh)
    setup = Setup(settings, mesh)
    initial = meshes.read_once(lambda: read_initial(settings, workdir), setup.params)
    held_out = _open_held_out(settings, setup.model)
    feed = open_feed(settings, mesh, meshes.bytes_per_device(setup.state))

    folder, loop = make_folder(workdir), settings.train
    meshes.check_shared(folder)
    store = CheckpointStore(folder, loop.keep_checkpoints, _score(loop.best_metric))
    stop = meshes.StopAgreement(mesh, deadline)
    with stop.watched(), _closed(store):
        newest = check_newest(settings, store, workdir, feed.fingerprint)
        latents_of = find_latents_of(settings, store, newest, initial and initial[1])
        state = create_or_restore(setup, store, newest, initial and initial[0])
        first = int(state.step)
        if jax.process_index() == 0:
            drop_snapshots(workdir, after=first)
        monitor = Monitor(workdir, first, loop.steps, loop.log_every, settings.batch_seconds)
        profiler = Profiler(workdir, profile, first)
        run = _Run(setup, feed, store, monitor, profiler, held_out, stop, latents_of)
        with contextlib.closing(monitor), contextlib.closing(profiler):
            state = run.go_on(state)
    if feed.reported:
        _logger.warning('%d files or records could not be used throughout', len(feed.reported))
    return setup.to_stored(state)


@dataclasses.dataclass
class _Run:
    """The parts of a run."""

    setup: Setup
    feed: Feed
    store: CheckpointStore
    monitor: Monitor
    profiler: Profiler
    held_out: HeldOutClips | None
    stop: meshes.StopAgreement
    latents_of: tuple[str, ...]  # see `ModelConfig`

    @property
    def settings(self) -> TrainingConfig:
        """The run's settings."""
        return self.setup.settings

    def go_on(self, state: TrainState) -> TrainState:
        """Trains to the last step, with metrics, evaluations and checkpoints."""
        loop = self.settings.train
        train_step = self.setup.make_step(self.feed.specs, self.feed.fetch)
        steps = range(int(state.step), loop.steps)
        previous: Metrics | None = None
        is_due = False
        if not steps.start:
            self._evaluate(0, state, is_last=False)  # the first point of the curves
        for step, data in zip(steps, self.feed.batches(steps), strict=True):
            self.profiler.before_step(step)
            state, metrics = train_step(state, data, self.setup.steps)
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
            if is_last or done % loop.checkpoint_every == 0:
                self._keep_averages(done, state)
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
        """Turns the average's vector into a tree, whole on every device."""
        whole = meshes.replicated(self.setup.mesh)

        def unravel_average(vector: jax.Array) -> Any:  # the name is in the log
            return unravel(vector, self.setup.params)

        return jax.jit(unravel_average, out_shardings=whole)

    def _keep_averages(self, done: int, state: TrainState) -> None:
        """Writes a snapshot of the averages of `ema_profiles`; before the step's checkpoint."""
        if not (sigma_rels := self.settings.optimizer.ema_profiles):
            return
        profiles = profiles_of(state)
        if not int(profiles.count):  # no update yet, so no average
            return
        averages = [self._average(vector) for vector in profiles.averages]
        if jax.process_index() == 0:
            named = dict(zip(sigma_rels, averages, strict=True))
            write_snapshot(self.store.workdir, done, int(profiles.count), named)

    def _save(self, done: int, state: TrainState, figures: Mapping[str, float] | None) -> None:
        trees = self.setup.to_stored(state)
        self.store.save(
            done,
            trees.replace(ema_params=None),
            trees.ema_params,
            {**self.settings.record(self.latents_of), 'corpus': self.feed.fingerprint},
            figures,
        )

    def _check_skipped(self, done: int, metrics: Metrics) -> None:
        """Refuses to go on after too many skipped updates in a row."""
        skipped = int(metrics['skipped_in_row'])
        if skipped < self.settings.train.stop_after_skipped:
            return
        step, settings = done - 1, self.settings
        rows = jnp.arange(settings.data.batch_size)
        key = step_key(settings.seed, step)
        draws = draw(key, rows, (), self.setup.model, settings.consistency.density)
        schedule = settings.consistency.schedule
        index = schedule.place(draws.index, schedule.delta(step / settings.train.steps))
        sigma = np.asarray(settings.model.noise.sigma(index))
        checked = ', '.join(
            f'{name} {float(metrics[name]):.4g}' for name in CHECKED if name in metrics
        )
        raise InputError(
            f'{skipped} updates in a row were skipped, up to step {done}: not all of {checked} '
            f'are finite (sigma {sigma.min():.4g} to {sigma.max():.4g}, batch from '
            f'{_listed(self.feed.items(step))}): training has diverged; '
            f'{_describe_way_on(self.store.latest_step())} with a lower '
            'config.optimizer.learning_rate, or set config.optimizer.clip_norm'
        )


@contextlib.contextmanager
def _closed(store: CheckpointStore) -> Iterator[None]:
    """Closes the store at the end, which completes a save under way.

    After an error, which may be this process's alone, only if it would not wait for others.
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
    huber_scale, schedule = settings.consistency.huber_scale, settings.consistency.schedule
    last_delta = float(schedule.delta(1.0))
    frames = settings.data.crop_frames
    return HeldOutClips(settings.evaluation, model, frames, huber_scale, last_delta)


def _score(metric: str) -> Callable[[Mapping[str, float]], float]:
    """The function that ranks a checkpoint by its figures, higher for better."""
    sign = 1 if METRICS[metric].higher_is_better else -1

    def score(figures: Mapping[str, float]) -> float:
        value = sign * figures.get(metric, math.nan)
        return -math.inf if math.isnan(value) else value

    return score


def _describe_way_on(saved: int | None) -> str:
    return 'start again' if saved is None else f'go on from the checkpoint of step {saved}'


def _listed(items: list[str]) -> str:
    names = list(dict.fromkeys(items))
    more = f' and {len(names) - _NAMES_SHOWN} more' if len(names) > _NAMES_SHOWN else ''
    return ', '.join(names[:_NAMES_SHOWN]) + more

"""Output of a training run: curves, audio and pictures, a progress bar, a profile."""

import logging
import os
import re
import sys
import time

import jax
import numpy as np
import tqdm

from m2l_jax.evaluation.held_out import Evaluation
from m2l_jax.evaluation.noise_bins import token_figures
from m2l_jax.interface.errors import InputError
from m2l_jax.training.curves import EventFile

_logger = logging.getLogger(__name__)

_HISTOGRAM = 'token_histogram'  # of a discrete model; the other metrics are numbers
_MOST_SATURATED = 0.2  # of the latents
_WARMUP_STEPS = 10  # not profiled: they compile, and fill queues


class Monitor:
    """Writes metrics, one step late so that the device need not wait; in process 0 only.

    Args:
      workdir: the run's folder.
      first_step: number of finished steps.
      steps: in all.
      log_every: steps between two rows of metrics, and without a terminal two lines of the log.
      batch_seconds: of audio in a batch.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        first_step: int,
        steps: int,
        log_every: int,
        batch_seconds: float,
    ):
        self._log_every = log_every
        self._batch_hours = batch_seconds / 3600
        self._steps = steps
        self._pending: tuple[int, dict[str, jax.Array]] | None = None
        self._previous: dict[str, jax.Array] = {}
        self._histograms: list[jax.Array] = []  # of tokens, since the last row
        self._warn_from = 1  # step
        # Step and time from which the speed counts: not before the first step, which compiles.
        self._last: tuple[int, float] | None = None
        self._is_writer = jax.process_index() == 0
        if self._is_writer:
            self._events = EventFile(workdir, f'.{os.getpid()}.{first_step}')
        self._has_originals = False
        self._bar = tqdm.tqdm(
            initial=first_step,
            total=steps,
            unit='step',
            dynamic_ncols=True,
            disable=not (self._is_writer and sys.stderr.isatty()),
        )

    def after_step(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Takes the number of finished steps, and the metrics of the last one."""
        # The host runs one step ahead of the device: with more, batches would pile up in memory.
        jax.block_until_ready(self._previous)
        if self._previous and self._last is None:
            self._last = step - 1, time.monotonic()
        self._previous = metrics
        self._write_pending()
        self._bar.update()
        if _HISTOGRAM in metrics:
            self._histograms.append(metrics[_HISTOGRAM])
        if step % self._log_every == 0 or step == self._steps:
            self._pending = step, metrics

    def write_evaluation(self, step: int, evaluation: Evaluation) -> None:
        """Writes figures, audio and pictures; the evaluation's time is no part of the speed."""
        if self._last is not None:
            self._last = self._last[0], self._last[1] + evaluation.seconds
        if not self._is_writer:
            return
        self._events.add_scalars(step, evaluation.scalars)
        rate = evaluation.sample_rate
        for clip in evaluation.media:
            tag = f'evaluation/{clip.name}'
            if not self._has_originals:
                self._events.add_audio(step, f'{tag}/original', clip.original, rate)
            self._events.add_audio(step, f'{tag}/reconstruction', clip.reconstruction, rate)
            self._events.add_picture(step, tag, clip.picture)
        self._has_originals = True
        self._bar.clear()
        _logger.info('step %d/%d, held-out clips: %s', step, self._steps, evaluation.describe())
        self._bar.refresh()

    def close(self) -> None:
        """Writes what is left."""
        self._write_pending()
        self._bar.close()
        if self._is_writer:
            self._events.close()

    def _write_pending(self) -> None:
        if self._pending is None:
            return
        step, metrics = self._pending
        self._pending = None
        values = {name: float(value) for name, value in metrics.items() if name != _HISTOGRAM}
        if self._histograms:  # a batch is too small to hold all tokens
            values |= token_figures(np.mean(self._histograms, axis=0, dtype=np.float64))
            self._histograms.clear()
        rate = self._measure_rate(step)  # after `float`, which waits for the step
        if not self._is_writer:
            return
        figures, rest = f'loss {values["loss"]:.4g}', ''
        if rate:
            hours_rate = rate * self._batch_hours
            values |= {'steps_per_second': rate, 'audio_hours_per_second': hours_rate}
            figures += f', {hours_rate:.2g} audio-hours/s'
            left = tqdm.tqdm.format_interval((self._steps - step) / rate)
            rest = f', {rate:.3g} steps/s, {left} left'
        self._events.add_scalars(step, values)
        self._warn_of_saturation(step, values.get('latents_saturated', 0.0))
        self._bar.set_postfix_str(figures)
        if self._bar.disable:
            _logger.info('step %d/%d: %s%s', step, self._steps, figures, rest)

    def _measure_rate(self, step: int) -> float | None:
        """Steps a second since the last row; None at the first step, which compiles."""
        now = time.monotonic()
        last, self._last = self._last, (step, now)
        if last is None or last[0] == step:
            return None
        return (step - last[0]) / (now - last[1])

    def _warn_of_saturation(self, step: int, saturated: float) -> None:
        """Warns at the first such step, and again if it persists after twice as many."""
        if saturated > _MOST_SATURATED and step >= self._warn_from:
            self._warn_from = 2 * step
            _logger.warning(
                'step %d/%d: %.0f %% of the latents are stuck at -1 or 1, where the encoder learns '
                'nothing: start again with a lower config.optimizer.learning_rate or more '
                'config.optimizer.warmup_steps',
                step,
                self._steps,
                100 * saturated,
            )


class Profiler:
    """A `jax.profiler` trace of some steps of process 0, in `workdir/plugins/profile`.

    Args:
      workdir: the run's folder.
      steps: a number of steps, after ten for warm-up; 'FIRST:LAST', as the log counts steps; or ''
        for no trace.
      first_step: finished steps at the start of this run.

    Raises:
      InputError: if `steps` is neither.
    """

    def __init__(self, workdir: str | os.PathLike[str], steps: str, first_step: int = 0):
        match = re.fullmatch(r'(?:(\d+):)?(\d+)|', steps)
        if match is None:
            raise InputError(f'--profile={steps} must be a number of steps, or FIRST:LAST')
        first, last = match.groups()
        begin = first_step + _WARMUP_STEPS if first is None else int(first) - 1
        end = 0 if last is None else int(last) + (begin if first is None else 0)
        if steps and not 0 <= begin < end:
            raise InputError(f'--profile={steps} has no steps: use e.g. 20, or 101:120')
        self._steps = range(begin, end if jax.process_index() == 0 else 0)
        self._workdir, self._runs = os.fspath(workdir), False

    def before_step(self, done: int) -> None:
        """Starts the trace, where `done` steps before it are finished."""
        if self._steps and done == self._steps.start:
            jax.profiler.start_trace(self._workdir)
            self._runs = True

    def after_step(self, done: int, outputs: object) -> None:
        """Ends the trace once its last step is finished."""
        if self._runs and done == self._steps.stop:
            jax.block_until_ready(outputs)
            self.close()

    def close(self) -> None:
        """Ends a trace that is still running."""
        if self._runs:
            self._runs = False
            jax.profiler.stop_trace()
            _logger.info('profile written: tensorboard --logdir=%s', self._workdir)

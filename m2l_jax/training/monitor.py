"""What a training run shows while it runs: curves, audio and pictures, and a progress bar."""

import logging
import os
import sys
import time

import jax
import tqdm

from m2l_jax.evaluation.held_out import Evaluation
from m2l_jax.training.event_file import EventFile

_logger = logging.getLogger(__name__)


class Monitor:
    """Writes metrics one step late, so that the device never waits for its numbers to be read.

    On a terminal there is a progress bar; elsewhere (a log file, a cluster) a line an interval.
    Only process 0 writes.
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
        self._last_step, self._last_time = first_step, time.monotonic()
        self._is_writer = jax.process_index() == 0
        if self._is_writer:
            # Its files' names tell seconds only: one that is there would be overwritten.
            suffix = f'.{os.getpid()}.{first_step}'
            self._events = EventFile(workdir, suffix)
        self._has_originals = False
        self._bar = tqdm.tqdm(
            initial=first_step,
            total=steps,
            unit='step',
            dynamic_ncols=True,
            disable=not (self._is_writer and sys.stderr.isatty()),
        )

    def after_step(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Called with the number of finished steps and the metrics of the last of them."""
        # Steps are dispatched ahead of the device; by one, or batches would pile up in memory.
        jax.block_until_ready(self._previous)
        self._previous = metrics
        self._write_pending()
        self._bar.update()
        if step % self._log_every == 0 or step == self._steps:
            self._pending = step, metrics

    def write_evaluation(self, step: int, evaluation: Evaluation) -> None:
        """Writes the figures, audio and pictures of an evaluation after `step` finished steps.

        The originals are written once; the time that the evaluation took counts for no speed.
        """
        self._last_time += evaluation.seconds
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
        values = {name: float(value) for name, value in metrics.items()}
        now = time.monotonic()  # the step is done, for its numbers are there
        rate = (step - self._last_step) / (now - self._last_time)
        self._last_step, self._last_time = step, now
        hours_rate = rate * self._batch_hours
        if not self._is_writer:
            return
        speed = {'steps_per_second': rate, 'audio_hours_per_second': hours_rate}
        self._events.add_scalars(step, {**values, **speed})
        figures = f'loss {values["loss"]:.4g}, {hours_rate:.2g} audio-hours/s'
        self._bar.set_postfix_str(figures)
        if self._bar.disable:
            left = tqdm.tqdm.format_interval((self._steps - step) / rate)
            _logger.info(
                'step %d/%d: %s, %.3g steps/s, %s left', step, self._steps, figures, rate, left
            )

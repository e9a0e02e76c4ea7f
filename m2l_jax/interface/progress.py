"""How far a long piece of work is, for whoever looks at a terminal or a log."""

import logging
import sys
import time

import tqdm

_logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 30


class ProgressBar:
    """On a terminal a bar, elsewhere a line now and then."""

    def __init__(self, total: float, unit: str, done: float = 0):
        """Begins to count the time.

        Args:
          total: of the work.
          unit: in which it is counted.
          done: so much was done before, in another run, and tells nothing of the speed.
        """
        self._total = total
        self._before = self._done = done
        self._begin = self._line_time = time.monotonic()
        self._bar = tqdm.tqdm(
            total=total,
            initial=done,
            unit=unit,
            unit_scale=unit == 'B',
            smoothing=0,
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )

    def advance(self, amount: float, figures: str) -> None:
        """Counts what was done, which may be nothing yet, and shows it with other figures."""
        self._done += amount
        self._bar.set_postfix_str(figures, refresh=False)
        self._bar.update(amount)
        now = time.monotonic()
        if self._bar.disable and now - self._line_time > _SECONDS_BETWEEN_LINES:
            self._line_time = now
            _logger.info('%s%s', figures, self._describe_rest(now - self._begin))

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()

    def _describe_rest(self, seconds: float) -> str:
        if self._done <= self._before:
            return ''
        left = seconds * (self._total - self._done) / (self._done - self._before)
        return f', {describe_duration(left)} left'


def describe_duration(seconds: float) -> str:
    """A duration as people say it: `45 s`, `12 min`, `3 h 20 min`, `2 d 5 h`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f'{seconds:.0f} s'
    if minutes < 60:
        return f'{minutes} min'
    if minutes < 48 * 60:
        return f'{minutes // 60} h {minutes % 60} min'
    hours = round(minutes / 60)
    return f'{hours // 24} d {hours % 24} h'

"""Progress of long work: a bar on a terminal, a line now and then in a log."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import tqdm

from m2l_jax.interface.errors import Interrupted, StopRequest

_logger = logging.getLogger(__name__)

T = TypeVar('T')

STOPPED = 'stopped: run the same command again'

_SECONDS_BETWEEN_LINES = 30
_SECONDS_WITHOUT_BAR = 2  # quick work shows none


class ProgressBar:
    """A bar on a terminal or in a notebook, elsewhere a log line every 30 s.

    Amounts are of `unit`; `done` by an earlier run doesn't count for the speed.
    """

    def __init__(self, total: float, unit: str, done: float = 0):
        self._line_time = time.monotonic()
        self._bar = tqdm.tqdm(
            total=total,
            initial=done,
            unit=unit,
            unit_scale=unit == 'B',
            smoothing=0,
            dynamic_ncols=True,
            delay=_SECONDS_WITHOUT_BAR,
            disable=not (sys.stderr.isatty() or _in_notebook()),
        )
        self._total, self._before, self._done = total, done, done
        self._begin = self._line_time

    def advance(self, amount: float, figures: str) -> None:
        """Adds finished work, possibly none or less than none, and shows it with other figures."""
        self._done += amount
        self._bar.set_postfix_str(figures, refresh=False)
        self._bar.update(amount)
        now = time.monotonic()
        if self._bar.disable and now - self._line_time > _SECONDS_BETWEEN_LINES:
            self._line_time = now
            _logger.info('%s%s%s', self._describe_share(), figures, self._describe_rest(now))

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()

    def _describe_share(self) -> str:
        return f'{self._done / self._total:.0%}: ' if self._total else ''

    def _describe_rest(self, now: float) -> str:
        if self._done <= self._before:
            return ''
        left = (now - self._begin) * (self._total - self._done) / (self._done - self._before)
        return f', {describe_duration(left)} left'


def _in_notebook() -> bool:
    ipython = sys.modules.get('IPython')
    return ipython is not None and ipython.get_ipython() is not None


@contextlib.contextmanager
def progress(total: int, unit: str, text: str) -> Iterator[Callable[[], None]]:
    """Logs that `text` is measured and shows how far it is; yields what counts one as done.

    After Ctrl-C or SIGTERM that raises Interrupted. (A KeyboardInterrupt may be lost: JAX ignores
    one that is raised while it collects garbage.)
    """
    _logger.info('measuring %s', text)
    stop = StopRequest()
    promise = f'stopping after this {unit}; once more stops at once'
    with contextlib.closing(ProgressBar(total, unit)) as bar, stop.watched(promise):

        def advance() -> None:
            bar.advance(1, text)
            if stop:
                raise Interrupted(STOPPED)

        yield advance


def shown(results: Iterable[T], total: int, unit: str, text: str) -> Iterator[T]:
    """Passes `total` results on and shows how many there were."""
    with contextlib.closing(ProgressBar(total, unit)) as bar:
        for result in results:
            bar.advance(1, text)
            yield result


def describe_duration(seconds: float) -> str:
    """A duration in words: `45 s`, `12 min`, `3 h 20 min`, `2 d 5 h`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f'{seconds:.0f} s'
    if minutes < 60:
        return f'{minutes} min'
    if minutes < 48 * 60:
        return f'{minutes // 60} h {minutes % 60} min'
    days, hours = divmod(round(minutes / 60), 24)
    return f'{days} d {hours} h'

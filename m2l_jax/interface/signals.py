"""Requests to stop: SIGTERM from a scheduler or a reclaimed machine, and Ctrl-C."""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator

_logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """True once this process has been asked to stop."""

    def __init__(self):
        self._received: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self._received is not None

    @contextlib.contextmanager
    def watched(self, promise: str) -> Iterator[None]:
        """Notes the first SIGTERM or SIGINT; a second one has its usual effect.

        Args:
          promise: the work still done before the end, for the log.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread gets signals
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        def note(number: int, frame: object) -> None:
            restore()
            self._received = signal.Signals(number)
            _logger.warning('%s: %s', self._received.name, promise)

        for number in _SIGNALS:
            signal.signal(number, note)
        try:
            yield
        finally:
            restore()

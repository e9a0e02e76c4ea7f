"""The exceptions that end a command without a stack trace, and requests to stop."""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator

_logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class InputError(ValueError):
    """A mistake in what the user gave: a file, a field, a folder.

    The message is one line that names the file or field and the remedy. Commands print it and exit
    with code 1; library callers catch it as a ``ValueError``.
    """


class Interrupted(Exception):
    """Work that stopped early through no mistake of the user's, and goes on when run again.

    It was asked to stop, or lost another process; the message says which, and what is saved.
    Commands print it and exit with code 75.
    """


class StopRequest:
    """True once SIGTERM, of a scheduler or a reclaimed machine, or Ctrl-C has come."""

    def __init__(self):
        self._received: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self._received is not None

    @contextlib.contextmanager
    def watched(self, promise: str) -> Iterator[None]:
        """Notes the first SIGTERM or SIGINT, and logs `promise`; a second has its usual effect."""
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


def first_line(error: Exception) -> str:
    """The first line of another library's message, or the error's name where it has none."""
    message = str(error).strip()
    return message.splitlines()[0] if message else type(error).__name__

"""Output of Python and of libraries: kept as the caller has it, or quiet in a command."""

import contextlib
import logging
import pathlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def root_logger_kept() -> Iterator[None]:
    """Leaves a root logger without handlers as it is; also a decorator.

    absl sets it up with whatever is logged first, and a later `logging.basicConfig` of the caller's
    would do nothing. Warnings are shown as Python shows them by itself.
    """
    if logging.root.handlers:
        yield
        return
    logging.root.addHandler(logging.lastResort)
    try:
        yield
    finally:
        logging.root.removeHandler(logging.lastResort)


def is_news(record: logging.LogRecord) -> bool:
    """False for a stack trace of Orbax, which raises the same error: a filter for a command."""
    return record.exc_info is None or 'orbax' not in pathlib.Path(record.pathname).parts


def hush_closed_loops() -> None:
    """Drops one kind of exception that nobody can catch; for a process that is a command's own.

    TensorStore's threads raise it hundreds of times into the event loop that Orbax has closed after
    a save that failed, which is told already.
    """
    show = sys.unraisablehook

    def hook(unraisable: 'sys.UnraisableHookArgs') -> None:
        if str(unraisable.exc_value) != 'Event loop is closed':
            show(unraisable)

    sys.unraisablehook = hook

"""Logging and errors of libraries: left to the caller, or quiet in a command."""

import contextlib
import logging
import pathlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def root_logger_kept() -> Iterator[None]:
    """Keeps absl from adding a handler to the root logger; also a decorator.

    With one, a later `logging.basicConfig` of the caller's would do nothing.
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
    """Drops `Event loop is closed`, for a process that is a command's own.

    After a failed save, which is reported, TensorStore's threads raise it hundreds of times where
    nothing can catch it.
    """
    show = sys.unraisablehook

    def hook(unraisable: 'sys.UnraisableHookArgs') -> None:
        if str(unraisable.exc_value) != 'Event loop is closed':
            show(unraisable)

    sys.unraisablehook = hook

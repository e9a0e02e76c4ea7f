"""Logging that belongs to the caller's process."""

import contextlib
import logging
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

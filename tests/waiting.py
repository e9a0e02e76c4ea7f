"""Waiting for what happens elsewhere, however slow the machine is."""

import time

# Far beyond what any test's work takes, on a busy machine too: longer is a hang.
HANG_SECONDS = 1800


def wait_until(condition):
    """Looks again and again until a condition holds."""
    end = time.monotonic() + HANG_SECONDS
    while not condition():
        assert time.monotonic() < end, 'what is waited for does not happen'
        time.sleep(0.02)

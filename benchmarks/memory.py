"""The most memory that this process has held, since it last asked."""

import pathlib

_PEAK = '5'  # what Linux forgets the peak for: see proc(5), clear_refs


def forget_peak() -> None:
    """Lets the peak begin anew from what is held now."""
    pathlib.Path('/proc/self/clear_refs').write_text(_PEAK)


def peak_bytes() -> int:
    """The peak of the resident memory."""
    return _status('VmHWM')


def resident_bytes() -> int:
    """The resident memory."""
    return _status('VmRSS')


def _status(field: str) -> int:
    lines = pathlib.Path('/proc/self/status').read_text().splitlines()
    line = next(line for line in lines if line.startswith(f'{field}:'))
    return int(line.split()[1]) * 1024

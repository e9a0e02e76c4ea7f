"""What a benchmark came to: a table for the eye, and JSON to be kept."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from benchmarks import machine


def define_output() -> flags.FlagHolder:
    """The flag `--output=FILE`."""
    return flags.DEFINE_string('output', None, 'JSON file to write the figures to.')


def publish(figures: Mapping[str, Any], rows: Sequence[Sequence[Any]], path: str | None) -> None:
    """Prints a table and the machine, and writes the figures; see `table` and `write`."""
    print(table(rows))
    for name, value in machine.describe().items():
        print(f'{name}: {value}', flush=True)
    write(figures, path)


def write(figures: Mapping[str, Any], path: str | None) -> None:
    """Writes figures with date, hardware and versions to a file, whose folder is made; or not."""
    if path:
        file = pathlib.Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({**machine.describe(), **figures}, indent=2) + '\n')


def table(rows: Sequence[Sequence[Any]]) -> str:
    """Rows as lines, in columns: the first to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return '\n'.join(
        '  '.join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )

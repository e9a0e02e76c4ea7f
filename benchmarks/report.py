"""What a benchmark came to: a table for the eye, and JSON to be kept."""

from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from benchmarks import machine
from m2l_jax.interface.json_files import write_json


def define_output(default: str | None = None) -> flags.FlagHolder:
    """The flag `--output=FILE`."""
    return flags.DEFINE_string('output', default, 'JSON file to write the figures to.')


def publish(figures: Mapping[str, Any], rows: Sequence[Sequence[Any]], path: str | None) -> None:
    """Prints a table and the machine, and writes the figures; see `table` and `write`."""
    print(table(rows))
    for name, value in machine.describe().items():
        print(f'{name}: {value}', flush=True)
    write(figures, path)


def write(figures: Mapping[str, Any], path: str | None) -> None:
    """Writes figures with what `machine.describe` tells to a file, whose folder is made; or not."""
    if path:
        write_json(path, {**machine.describe(), **figures})


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

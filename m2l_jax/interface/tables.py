"""Tables in text."""

from collections.abc import Sequence
from typing import Any


def format_table(rows: Sequence[Sequence[Any]]) -> str:
    """Rows as lines of columns; the first column is aligned left, the others right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return '\n'.join(
        '  '.join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )

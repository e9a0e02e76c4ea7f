"""How much of an array a CPU takes at a time, so that it stays near to the processor."""


def largest_strip(rows: int, row_bytes: float, most_bytes: float, multiple: int = 1) -> int:
    """The most rows, in multiples, that divide `rows` and take `most_bytes`; a multiple at least.

    Args:
      rows: in all, a multiple of `multiple`.
      row_bytes: of what one row becomes.
      most_bytes: of what a strip may become.
      multiple: what rows come in.
    """
    fitting = [
        size
        for size in range(multiple, rows + 1, multiple)
        if rows % size == 0 and size * row_bytes <= most_bytes
    ]
    return max(fitting, default=multiple)

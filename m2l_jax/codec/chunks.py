"""How long audio is cut for the memory's sake."""

Piece = tuple[int, int]  # begin and end


def cut(total: int, size: int) -> list[list[Piece]]:
    """Cuts `range(total)` into chunks of `size`, the last one completed from the start.

    A chunk is a list of pieces to be joined: one, or for the last chunk two, of which the second
    wraps round to the start, as the reference completes it. What is no longer than a chunk stays
    whole.
    """
    if total <= size:
        return [[(0, total)]]
    chunks = [[(begin, min(begin + size, total))] for begin in range(0, total, size)]
    last_begin, last_end = chunks[-1][0]
    if last_end - last_begin < size:
        chunks[-1].append((0, size - (last_end - last_begin)))
    return chunks

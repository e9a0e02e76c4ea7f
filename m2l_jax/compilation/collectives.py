"""What a compiled program sends between chips, read from its text."""

import dataclasses
import math
import re
from collections.abc import Iterator

_KINDS = 'all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute'
# `%all-reduce.1 = (f32[2]{0}, f32[3]{0}) all-reduce(…`; of an asynchronous one its start.
_OPERATION = re.compile(rf'^\s+(?:ROOT )?\S+ = (.*?) ({_KINDS})(-start)?\(')
_ARRAY = re.compile(r'([a-z]+)(\d+)\w*\[([\d,]*)\]')


@dataclasses.dataclass(frozen=True)
class Collective:
    """All operations of one kind.

    Attributes:
      kind: 'all-reduce', 'all-gather', …
      count: operations.
      bytes: of their results on one chip.
      asynchronous: how many of them are started, and waited for later.
    """

    kind: str
    count: int
    bytes: int
    asynchronous: int


def find_collectives(program: str) -> list[Collective]:
    """The collectives of a program in HLO's text form; one in a loop counts once."""
    found: dict[str, Collective] = {}
    for kind, size, is_started in _operations(program):
        old = found.get(kind, Collective(kind, 0, 0, 0))
        found[kind] = Collective(
            kind, old.count + 1, old.bytes + size, old.asynchronous + is_started
        )
    return sorted(found.values(), key=lambda collective: -collective.bytes)


def _operations(program: str) -> Iterator[tuple[str, int, bool]]:
    for line in program.splitlines():
        match = _OPERATION.match(line)
        if match:
            shapes, kind, start = match.groups()
            yield kind, _bytes(shapes, bool(start) and kind != 'all-reduce'), bool(start)


def _bytes(shapes: str, has_operands: bool) -> int:
    """Of the arrays in an operation's type; a started one's may hold its operands, first."""
    sizes = [
        int(bits) // 8 * math.prod(int(length) for length in dimensions.split(',') if length)
        for _, bits, dimensions in _ARRAY.findall(shapes)
    ]
    return sum(sizes[len(sizes) // 2 :] if has_operands else sizes)

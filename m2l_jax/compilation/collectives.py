"""Operations of a compiled program that send data between chips, read from its text."""

import dataclasses
import math
import re
from collections.abc import Iterator

KINDS = 'all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute'
# `%all-reduce.1 = (f32[2]{0}, f32[3]{0}) all-reduce(…`; of an asynchronous one its start.
_OPERATION = re.compile(rf'^\s+(?:ROOT )?\S+ = (.*?) ({KINDS})(-start)?\((.*)')
_ARRAY = re.compile(r'\b([a-z]+)(\d+)\w*\[([\d,]*)\]')
_CHAIN = re.compile(r'chain_id="(\d+)"')


@dataclasses.dataclass(frozen=True)
class Collective:
    """All operations of one kind.

    Attributes:
      kind: 'all-reduce', 'all-gather', …
      count: operations.
      bytes: of their results on one chip.
      asynchronous: operations during which other work goes on.
    """

    kind: str
    count: int
    bytes: int
    asynchronous: int

    def sent(self, chips: int) -> float:
        """Bytes that the busiest chip of a ring sends, at least."""
        share = (chips - 1) / chips
        factors = {
            'all-reduce': 2 * share,  # a reduce-scatter and an all-gather
            'reduce-scatter': chips * share,  # its result is one part
            'collective-permute': 1.0,
        }
        return self.bytes * factors.get(self.kind, share)


def find_collectives(program: str) -> list[Collective]:
    """The collectives of a program in HLO's text form; one in a loop counts once."""
    found: dict[str, Collective] = {}
    for kind, size, is_asynchronous in _operations(program):
        old = found.get(kind, Collective(kind, 0, 0, 0))
        found[kind] = Collective(
            kind, old.count + 1, old.bytes + size, old.asynchronous + is_asynchronous
        )
    return sorted(found.values(), key=lambda collective: -collective.bytes)


def _operations(program: str) -> Iterator[tuple[str, int, bool]]:
    """Kind, bytes, and whether it is asynchronous, of each operation once.

    The compiler for TPUs writes an asynchronous one several times, as a chain: where it starts, in
    all that runs meanwhile, and where it ends.
    """
    chains: set[str] = set()
    for line in program.splitlines():
        match = _OPERATION.match(line)
        if not match:
            continue
        shapes, kind, start, rest = match.groups()
        chain = _CHAIN.search(rest)
        if chain and chain[1] in chains:
            continue
        if chain:
            chains.add(chain[1])
        yield kind, _bytes(shapes, kind, bool(start)), bool(start or chain)


def _bytes(shapes: str, kind: str, is_start: bool) -> int:
    """Of the arrays in an operation's type."""
    sizes = [
        int(bits) * math.prod(int(length) for length in dimensions.split(',') if length) // 8
        for name, bits, dimensions in _ARRAY.findall(shapes)
        if not (is_start and name in 'us' and not dimensions)  # contexts, u32[]
    ]
    # A started one's type holds its operands before its results; but not an all-reduce's.
    return sum(sizes[len(sizes) // 2 :] if is_start and kind != 'all-reduce' else sizes)

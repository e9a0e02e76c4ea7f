"""How the files of a corpus are cut into shards: the units of work, of commit and of retry.

The plan is a pure function of names and sizes, so that every process of a job, on whatever machine,
makes the same one, and no header is read for it.
"""

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterable, Sequence

from m2l_jax.interface.errors import InputError


@dataclasses.dataclass(frozen=True, slots=True)  # there may be ten million
class Item:
    """One input.

    Attributes:
      source: its name below the folder that all inputs share, with forward slashes; as stored.
      path: where it is read from; of a record, its dataset as `AudioRecords` takes it.
      bytes: its size; 0 where it could not be had. Of a record, the mean of its split.
      record: its number in the dataset, or None for a file.
    """

    source: str
    path: str
    bytes: int
    record: int | None = None


@dataclasses.dataclass(frozen=True)
class Shard:
    """Items that are worked on together, with the shard's number in the plan."""

    number: int
    items: tuple[Item, ...]

    @property
    def bytes(self) -> int:
        """Of all its items."""
        return sum(item.bytes for item in self.items)


def plan_shards(items: Iterable[Item], megabytes: float, most_files: int) -> tuple[Shard, ...]:
    """Fills shards with items, in the order of a hash of their names, so that none is one album.

    Args:
      items: in any order: the plan is the same.
      megabytes: of a shard, in 10⁶ bytes; only an item that is larger by itself exceeds it.
      most_files: of a shard.

    Raises:
      InputError: if two items have one name, or a limit is no number above 0.
    """
    if not megabytes > 0:  # NaN neither
        raise InputError(f'--shard_megabytes={megabytes} must be a number above 0')
    if most_files < 1:
        raise InputError(f'--shard_files={most_files} must be at least 1')
    shards: list[Shard] = []
    taken: list[Item] = []
    room = megabytes * 1e6
    for item in _shuffled(items):
        if taken and (item.bytes > room or len(taken) == most_files):
            shards.append(Shard(len(shards), tuple(taken)))
            taken, room = [], megabytes * 1e6
        taken.append(item)
        room -= item.bytes
    return (*shards, Shard(len(shards), tuple(taken))) if taken else ()


def parse_share(text: str) -> tuple[int, int]:
    """`'3/16'` as (3, 16): the fourth of sixteen shares, counted from 0.

    Raises:
      InputError: if it is no share.
    """
    match = re.fullmatch(r'(\d+)/(\d+)', text)
    if match is None:
        raise InputError(f'--shard={text} must be i/n, e.g. 0/16 for the first of 16 shares')
    index, count = map(int, match.groups())
    if index >= count:
        raise InputError(
            f'--shard={text} must be i/n with i below n: shares are counted from 0 to n-1'
        )
    return index, count


def share_of(shards: Sequence[Shard], index: int, count: int) -> tuple[Shard, ...]:
    """The shards of one of `count` processes: every `count`-th, from number `index` on."""
    return tuple(shards[index::count])


def _shuffled(items: Iterable[Item]) -> list[Item]:
    """In the order of a hash of their names; two of one name, which come together, are refused."""
    shuffled = sorted(items, key=lambda item: _hash(item.source))
    for first, second in itertools.pairwise(shuffled):
        if first.source == second.source:
            raise InputError(
                f'{first.path} and {second.path} would both be stored as {first.source!r}: '
                'name each input once'
            )
    return shuffled


def _hash(source: str) -> bytes:
    # A name of undecodable bytes holds surrogates.
    return hashlib.blake2b(source.encode('utf-8', 'surrogatepass')).digest()

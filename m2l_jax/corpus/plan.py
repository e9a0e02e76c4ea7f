"""The plan of a job: its input, cut into shards, which are worked on, committed and redone whole.

The plan depends on names and sizes alone, so that every process, on any machine, makes the same.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import re
from collections.abc import Iterable, Sequence

from m2l_jax.audio.files import AudioInfo
from m2l_jax.interface.errors import InputError


@dataclasses.dataclass(frozen=True, slots=True)  # there may be ten million
class Item:
    """One input.

    Attributes:
      source: its name below the folder that all inputs share, with forward slashes; as stored.
      path: the file; of a record, its dataset as `AudioRecords` takes it.
      bytes: its size, 0 if unknown; of a record, the mean of its split.
      record: its number in the dataset, or None for a file.
    """

    source: str
    path: str
    bytes: int
    record: int | None = None

    @property
    def state(self) -> str:
        """Content as far as it is compared when a job goes on: the size."""
        return str(self.bytes)


@dataclasses.dataclass(frozen=True)
class Shard:
    """Items that are worked on together, with the shard's number in the plan."""

    number: int
    items: tuple[Item, ...]

    @property
    def bytes(self) -> int:
        """Size of all items."""
        return sum(item.bytes for item in self.items)

    @property
    def files(self) -> int:
        """Number of items."""
        return len(self.items)


@dataclasses.dataclass(frozen=True, slots=True)
class Piece(Item):
    """Consecutive segments of a file, from number `first` to before `stop`.

    Attributes:
      info: the file's header, or None where it cannot be read.
      problem: why the file cannot be used, or ''.
    """

    info: AudioInfo | None = None
    problem: str = ''
    first: int = 0
    stop: int = 0

    @property
    def state(self) -> str:
        """The file's size and header, on which the plan depends."""
        info = self.info
        header = () if info is None else (info.sample_rate, info.channels, info.samples)
        return ' '.join(map(str, (self.bytes, *header)))


class SegmentShard(Shard):
    """Pieces that are worked on together; each file counts where it begins."""

    @property
    def bytes(self) -> int:
        """Size of the files that begin here."""
        return sum(piece.bytes for piece in self.items if piece.first == 0)

    @property
    def files(self) -> int:
        """Number of files that begin here."""
        return sum(piece.first == 0 for piece in self.items)


@dataclasses.dataclass(frozen=True)
class Output:
    """A file that a shard's work has written.

    Attributes:
      name: its path below the output folder, with forward slashes.
      bytes: its size.
      sha256: hash of its content, in hexadecimal.
      records: number of records in a dataset's shard, 1 for any other file of latents or audio, 0
        for a file that belongs to another.
    """

    name: str
    bytes: int
    sha256: str
    records: int


@dataclasses.dataclass(frozen=True)
class ShardSummary:
    """The result of a shard.

    Attributes:
      number: the shard's.
      files: number of files done.
      seconds: audio in them.
      latents: vectors, over all channels.
      outputs: files written.
      failures: (source, reason) of each file that could not be done.
      warnings: (source, reason) where a file was done, but is probably not what it should be.
    """

    number: int
    files: int
    seconds: float
    latents: int
    outputs: tuple[Output, ...]
    failures: tuple[tuple[str, str], ...]
    warnings: tuple[tuple[str, str], ...] = ()


def describe_output(folder: str | os.PathLike[str], name: str, records: int) -> Output:
    """Describes a file that has just been written, `name` below `folder`; raises an OSError."""
    path = pathlib.Path(folder, name)
    return Output(name, path.stat().st_size, digest_file(path), records)


def digest_file(path: str | os.PathLike[str]) -> str:
    """Computes the SHA-256 of a file's content, in hexadecimal; raises an OSError."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def parse_summary(text: str) -> ShardSummary:
    """Parses a summary's JSON.

    Raises:
      ValueError, LookupError, TypeError: if it is none.
    """
    fields = json.loads(text)
    fields['outputs'] = tuple(Output(**output) for output in fields['outputs'])
    for name in ('failures', 'warnings'):  # older summaries have no warnings
        fields[name] = tuple((source, reason) for source, reason in fields.get(name, ()))
    return ShardSummary(**fields)


def plan_shards(items: Iterable[Item], megabytes: float, most_files: int) -> tuple[Shard, ...]:
    """Fills shards with items in the order of a hash of their names, so that none is one album.

    Args:
      items: in any order; the plan is the same.
      megabytes: size of a shard, in 10⁶ bytes; only an item that is larger by itself exceeds it.
      most_files: in a shard.

    Raises:
      InputError: if two items have one name, or a limit is not a number above 0.
    """
    if not megabytes > 0:  # NaN neither
        raise InputError(f'--shard_megabytes={megabytes} must be a number above 0')
    if most_files < 1:
        raise InputError(f'--shard_files={most_files} must be at least 1')
    shards: list[Shard] = []
    taken: list[Item] = []
    room = megabytes * 1e6
    for item in shuffled(items):
        if taken and (item.bytes > room or len(taken) == most_files):
            shards.append(Shard(len(shards), tuple(taken)))
            taken, room = [], megabytes * 1e6
        taken.append(item)
        room -= item.bytes
    return (*shards, Shard(len(shards), tuple(taken))) if taken else ()


def shuffled(items: Iterable[Item]) -> list[Item]:
    """Sorts items by a hash of their names.

    Raises:
      InputError: if two items have one name.
    """
    ordered = sorted(items, key=lambda item: _hash(item.source))
    for first, second in itertools.pairwise(ordered):
        if first.source == second.source:
            raise InputError(
                f'{first.path} and {second.path} would both be stored as {first.source!r}: '
                'name each input once'
            )
    return ordered


def parse_share(text: str) -> tuple[int, int]:
    """Parses `'3/16'`, the fourth of sixteen shares, as (3, 16).

    Raises:
      InputError: if it is not a share.
    """
    match = re.fullmatch(r'(\d+)/(\d+)', text)
    if match is None:
        raise InputError(f'--share={text} must be i/n, e.g. 0/16 for the first of 16 shares')
    index, count = map(int, match.groups())
    if index >= count:
        raise InputError(
            f'--share={text} must be i/n with i below n: shares are counted from 0 to n-1'
        )
    return index, count


def share_of(shards: Sequence[Shard], index: int, count: int) -> tuple[Shard, ...]:
    """Takes every `count`-th shard, from number `index` on."""
    return tuple(shards[index::count])


def _hash(source: str) -> bytes:
    # A name of undecodable bytes holds surrogates.
    return hashlib.blake2b(source.encode('utf-8', 'surrogatepass')).digest()

"""The plan of a job: input, shards, their division among processes, and results.

Shards are worked on, committed and redone whole. The plan depends on names and sizes alone, so
every process, on any machine, makes the same.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from m2l_jax.audio.files import AudioInfo
from m2l_jax.audio.suffixes import NONE_LEFT_OUT, LeftOut
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.progress import describe_duration


@dataclasses.dataclass(frozen=True, slots=True)  # there may be ten million
class Item:
    """One input.

    Attributes:
      source: name below the folder that all inputs share, with forward slashes; it is stored.
      path: of the file; for a record, its dataset as `AudioRecords` takes it.
      bytes: size, 0 if unknown; for a record, the mean of its split.
      record: number in the dataset; None for a file.
    """

    source: str
    path: str
    bytes: int
    record: int | None = None
    first: ClassVar[int] = 0  # segment, see `Piece`

    @property
    def state(self) -> str:
        """The content as far as a job that goes on compares it: the size."""
        return str(self.bytes)


@dataclasses.dataclass(frozen=True, slots=True)
class Piece(Item):
    """Segments `first` to `stop - 1` of a file.

    Attributes:
      info: the file's header; None if it cannot be read.
      problem: the reason why the file cannot be used, or ''.
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


# Takes work that was done: seconds of audio, and bytes of input, 0 if not known.
Advance = Callable[[float, float], None]


@dataclasses.dataclass(frozen=True)
class Shard:
    """Items that are worked on together, with the shard's number in the plan.

    A file that is spread over several shards counts in the one where it begins.
    """

    number: int
    items: tuple[Item, ...]

    @property
    def bytes(self) -> int:
        """Size of the files that begin here."""
        return sum(item.bytes for item in self.items if item.first == 0)

    @property
    def files(self) -> int:
        """Number of files that begin here."""
        return sum(item.first == 0 for item in self.items)


@dataclasses.dataclass(frozen=True)
class Output:
    """A file that was written."""

    name: str  # path below the output folder, with forward slashes
    bytes: int
    sha256: str  # of the content, in hexadecimal
    records: int  # in a dataset's shard; 1 for other latents or audio, 0 for a file of another one


@dataclasses.dataclass(frozen=True)
class ShardSummary:
    """The result of a shard."""

    number: int  # of the shard
    files: int  # done
    seconds: float  # of audio in them
    latents: int  # vectors, over all channels
    outputs: tuple[Output, ...]
    failures: tuple[tuple[str, str], ...]  # source and reason of each file that was not done
    warnings: tuple[tuple[str, str], ...] = ()  # source and reason of likely mistakes in others


@dataclasses.dataclass
class RunReport:
    """The work that a process has done on a job; `report.json` has the same fields."""

    seconds: float = 0.0  # taken, after the model was loaded
    shards: int = 0  # done
    files: int = 0  # done in them
    failures: int = 0  # files in them that could not be done
    warnings: int = 0  # about the files done
    hours: float = 0.0  # of audio in the files done
    times_real_time: float = 0.0  # duration of the audio over the time taken
    latents: int = 0  # vectors, over all channels
    shards_before: int = 0  # done before it began
    files_before: int = 0  # done in them
    shards_missing: int = 0  # of its share, if it was stopped
    left_out: LeftOut = NONE_LEFT_OUT  # files of the whole input, for their suffixes

    def describe(self) -> str:
        """Describes the run in a few lines to print."""
        left_out = f'\n{self.left_out.describe()}' if self.left_out.files else ''
        if not self.shards and not self.shards_missing:
            return (
                f'nothing to do: all {self.shards_before} shards were done before. failures.csv '
                f'names the files that could not be done; --verify checks the others{left_out}'
            )
        latents = f'{self.latents} latent vectors, ' if self.latents else ''
        failures = f'{self.failures} failures{" (failures.csv)" if self.failures else ""}'
        warnings = f', {self.warnings} warnings (warnings.csv)' if self.warnings else ''
        before = f'\n{self.shards_before} shards were done before' if self.shards_before else ''
        missing = f'\n{self.shards_missing} shards are missing' if self.shards_missing else ''
        return (
            f'{self.files} files, {describe_duration(self.hours * 3600)} of audio in '
            f'{describe_duration(self.seconds)}: {self.times_real_time:.1f} times real time, '
            f'{latents}{failures}{warnings}{before}{missing}{left_out}'
        )

    def check_any_done(self, folder: str | os.PathLike[str]) -> None:
        """Raises an InputError if files were worked on, now or before, and none could be done."""
        if (self.failures or self.shards_before) and not self.files and not self.files_before:
            raise InputError(f'none of the files could be done: {folder}/failures.csv says why')


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """The division of the work. The results don't depend on it, but for rounding.

    Attributes:
      share: `i/n` for the i-th of n shares of the shards; None for all, or for those of this
        process where several have joined through JAX.
      retry_failures: True to redo shards in which files failed.
      threads: shards that a process or actor works on at once. With two, one is computed while the
        other is read or written.
      ray: address of a Ray cluster, `auto` for this machine's; None to work in this process.
      ray_cpus: cores of each Ray actor.
      ray_accelerators: True if each takes an accelerator too, where the cluster has any.
    """

    share: str | None = None
    retry_failures: bool = False
    threads: int = 2
    ray: str | None = None
    ray_cpus: int = 4
    ray_accelerators: bool = True

    def __post_init__(self):
        for flag, value in (('workers', self.threads), ('ray_cpus', self.ray_cpus)):
            if value < 1:
                raise InputError(f'--{flag}={value} must be at least 1')


def describe_output(folder: str | os.PathLike[str], name: str, records: int) -> Output:
    """Describes the new file `name` below `folder`; raises an OSError."""
    path = pathlib.Path(folder, name)
    return Output(name, path.stat().st_size, digest_file(path), records)


def digest_file(path: str | os.PathLike[str]) -> str:
    """Computes the SHA-256 of a file's content, in hexadecimal; raises an OSError."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def parse_summary(text: str) -> ShardSummary:
    """Parses a summary's JSON.

    Raises:
      ValueError, LookupError, TypeError: if it isn't a summary.
    """
    fields = json.loads(text)
    fields['outputs'] = tuple(Output(**output) for output in fields['outputs'])
    for name in ('failures', 'warnings'):  # older summaries have no warnings
        fields[name] = tuple((source, reason) for source, reason in fields.get(name, ()))
    return ShardSummary(**fields)


def plan_shards(items: Iterable[Item], megabytes: float, most_files: int) -> tuple[Shard, ...]:
    """Fills shards with items in the order of a hash of their names, which mixes albums.

    Args:
      items: in any order; the plan is the same.
      megabytes: size of a shard, in 10⁶ bytes; only a single larger item exceeds it.
      most_files: limit in a shard.

    Raises:
      InputError: if two items have one name, or a limit is not a number above 0.
    """
    if not megabytes > 0:  # or NaN
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
        raise InputError(f'--share={text} must be i/n with i below n, counted from 0')
    return index, count


def share_of(shards: Sequence[Shard], index: int, count: int) -> tuple[Shard, ...]:
    """Takes every `count`-th shard, from number `index` on."""
    return tuple(shards[index::count])


def _hash(source: str) -> bytes:
    # A name of undecodable bytes holds surrogates.
    return hashlib.blake2b(source.encode('utf-8', 'surrogatepass')).digest()

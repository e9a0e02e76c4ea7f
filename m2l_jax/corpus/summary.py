"""What came of a shard."""

import dataclasses
import hashlib
import json
import os
import pathlib


@dataclasses.dataclass(frozen=True)
class Output:
    """A file that a shard's work has written.

    Attributes:
      name: its path below the output folder, with forward slashes.
      bytes: its size.
      sha256: of its content, in hexadecimal.
      records: that it holds: of a shard its records, 1 of any other file of latents or audio, 0 of
        what belongs to another file.
    """

    name: str
    bytes: int
    sha256: str
    records: int


@dataclasses.dataclass(frozen=True)
class ShardSummary:
    """What came of a shard.

    Attributes:
      number: the shard's.
      files: that were done.
      seconds: of audio in them.
      latents: vectors, of all channels.
      outputs: what was written.
      failures: (source, reason) of each file that could not be done.
      warnings: (source, reason) where a file was done, and is hardly what it should be.
    """

    number: int
    files: int
    seconds: float
    latents: int
    outputs: tuple[Output, ...]
    failures: tuple[tuple[str, str], ...]
    warnings: tuple[tuple[str, str], ...] = ()


def describe_output(folder: str | os.PathLike[str], name: str, records: int) -> Output:
    """What is to be noted of a file that has just been written; raises an OSError.

    Args:
      folder: the job's output folder.
      name: of the file, below it.
      records: see `Output`.
    """
    path = pathlib.Path(folder, name)
    return Output(name, path.stat().st_size, digest_file(path), records)


def digest_file(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's content, in hexadecimal; raises an OSError."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def to_json(summary: ShardSummary) -> str:
    """A summary as text, the same for the same summary."""
    return json.dumps(dataclasses.asdict(summary), indent=1) + '\n'


def from_json(text: str) -> ShardSummary:
    """The summary that `to_json` has made text of.

    Raises:
      ValueError, LookupError, TypeError: if it is none.
    """
    fields = json.loads(text)
    fields['outputs'] = tuple(Output(**output) for output in fields['outputs'])
    for name in ('failures', 'warnings'):  # older summaries have no warnings
        fields[name] = tuple((source, reason) for source, reason in fields.get(name, ()))
    return ShardSummary(**fields)

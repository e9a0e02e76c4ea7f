"""Where the latents of a shard are written to; here, a file for each input."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Protocol

from m2l_jax.corpus.inputs import mirrored_name
from m2l_jax.corpus.store import StoredLatents, write_latents, written_paths
from m2l_jax.corpus.summary import Output, ShardSummary, describe_output
from m2l_jax.interface.errors import InputError

_LONGEST_NAME = 255  # bytes that file systems give to one


def check_name(path: pathlib.Path) -> None:
    """Raises InputError if no file can have such a name."""
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise InputError(
            f'{path.name} is too long for the name of a file: shorten that of its source'
        )


class Sink(Protocol):
    """Takes the latents of a shard's files, one after another."""

    def check(self, source: str, stored: StoredLatents) -> None:
        """Raises InputError if those of a file could not be written anywhere."""

    def write(self, source: str, stored: StoredLatents) -> None:
        """Writes those of a file; raises InputError or OSError without space or permission."""

    def outputs(self) -> tuple[Output, ...]:
        """What was written, once the shard is closed."""


class LatentFormat(Protocol):
    """How latents are written."""

    def opened(self, number: int) -> contextlib.AbstractContextManager[Sink]:
        """What takes the latents of the shard of that number."""

    def complete(self, summaries: Iterable[ShardSummary]) -> None:
        """Finishes the output, of which all shards are written."""


@dataclasses.dataclass(frozen=True)
class FileFormat:
    """A file for each input, the tree of their names mirrored; see `LatentFormat`.

    Attributes:
      folder: for all of them.
      suffix: '.npz' or '.npy'.
    """

    folder: pathlib.Path
    suffix: str

    @contextlib.contextmanager
    def opened(self, number: int) -> Iterator['_FileSink']:
        """Each file takes its name once it is complete."""
        yield _FileSink(self)

    def complete(self, summaries: Iterable[ShardSummary]) -> None:
        """Nothing is left to be done."""


class _FileSink:
    def __init__(self, files: FileFormat):
        self._files = files
        self._outputs: list[Output] = []

    def check(self, source: str, stored: StoredLatents) -> None:
        for path in written_paths(self._path(source)):
            check_name(path)

    def write(self, source: str, stored: StoredLatents) -> None:
        folder, path = self._files.folder, self._path(source)
        write_latents(path, stored)
        for written in written_paths(path):
            name = written.relative_to(folder).as_posix()
            self._outputs.append(describe_output(folder, name, int(written == path)))

    def outputs(self) -> tuple[Output, ...]:
        return tuple(self._outputs)

    def _path(self, source: str) -> pathlib.Path:
        return self._files.folder / mirrored_name(source, self._files.suffix)

"""Where the latents of a shard are written to: a file for each input, or a shard of a dataset."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Protocol

from m2l_jax.corpus import latent_dataset
from m2l_jax.corpus.store import StoredLatents, write_latents, written_paths
from m2l_jax.corpus.summary import Output, ShardSummary
from m2l_jax.corpus.verification import digest_file
from m2l_jax.data.record_dataset import ShardWriter
from m2l_jax.interface.paths import replaced_file


class Sink(Protocol):
    """Takes the latents of a shard's files, one after another."""

    def check(self, source: str, stored: StoredLatents) -> None:
        """Raises InputError if those of a file cannot be written, wherever it were."""

    def write(self, source: str, stored: StoredLatents) -> None:
        """Writes those of a file; raises InputError or OSError without space or permission."""

    def outputs(self) -> tuple[Output, ...]:
        """What was written, once the shard is closed."""


@dataclasses.dataclass(frozen=True)
class LatentFormat:
    """How latents are written.

    Attributes:
      folder: where.
      kind: 'npz', 'npy' or 'tfds'.
      dtype: of what is stored, see `store.STORAGE_DTYPES`.
      width: numbers a frame.
      shards: of the whole job.
    """

    folder: pathlib.Path
    kind: str
    dtype: str
    width: int
    shards: int

    @contextlib.contextmanager
    def opened(self, number: int) -> Iterator[Sink]:
        """What takes a shard's latents; after an error nothing of a dataset's shard is left."""
        if self.kind != 'tfds':
            yield _FileSink(self.folder, f'.{self.kind}')
            return
        records = latent_dataset.record_format(self.width, self.dtype)
        path = records.shard_path(self.folder, number, self.shards)
        with replaced_file(path) as partial, ShardWriter(partial, records.features) as writer:
            yield _DatasetSink(path, writer)

    def complete(self, summaries: Sequence[ShardSummary]) -> None:
        """Makes a dataset of the shards, all of which are written."""
        if self.kind == 'tfds':
            outputs = [output for summary in summaries for output in summary.outputs]
            latent_dataset.record_format(self.width, self.dtype).write_metadata(
                self.folder,
                [output.records for output in outputs],
                sum(output.bytes for output in outputs),
                latent_dataset.describe(self.dtype),
            )


class _FileSink:
    """A file for each input, the tree of their names mirrored."""

    def __init__(self, folder: pathlib.Path, suffix: str):
        self._folder = folder
        self._suffix = suffix
        self._outputs: list[Output] = []

    def check(self, source: str, stored: StoredLatents) -> None:
        pass

    def write(self, source: str, stored: StoredLatents) -> None:
        path = self._folder / pathlib.PurePosixPath(source).with_suffix(self._suffix)
        write_latents(path, stored)
        for written in written_paths(path):
            records = len(stored.latents) if written == path else 0
            self._outputs.append(describe_output(self._folder, written, records))

    def outputs(self) -> tuple[Output, ...]:
        return tuple(self._outputs)


class _DatasetSink:
    """A shard of a TFDS dataset, a record for each channel."""

    def __init__(self, path: pathlib.Path, writer: ShardWriter):
        self._path = path
        self._writer = writer
        self._records = 0

    def check(self, source: str, stored: StoredLatents) -> None:
        latent_dataset.check_size(source, stored)

    def write(self, source: str, stored: StoredLatents) -> None:
        # A name that is no UTF-8 could not be stored.
        readable = source.encode('utf-8', 'backslashreplace').decode()
        self._records += latent_dataset.write_file(self._writer, readable, stored)

    def outputs(self) -> tuple[Output, ...]:
        return (describe_output(self._path.parent, self._path, self._records),)


def describe_output(folder: pathlib.Path, path: pathlib.Path, records: int) -> Output:
    """What a summary says of a file that was written."""
    name = path.relative_to(folder).as_posix()
    return Output(name, path.stat().st_size, digest_file(path), records)

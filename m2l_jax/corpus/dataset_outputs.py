"""Latents written as a TFDS dataset, of which each shard of the work is one."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterable, Iterator

from m2l_jax.corpus import latent_dataset
from m2l_jax.corpus.store import StoredLatents
from m2l_jax.corpus.summary import Output, ShardSummary, describe_output
from m2l_jax.data.tfds import RecordFormat, ShardWriter
from m2l_jax.interface.paths import replaced_file


@dataclasses.dataclass(frozen=True)
class DatasetFormat:
    """A record for each channel of each input; see `outputs.LatentFormat`.

    Attributes:
      folder: of the dataset.
      width: numbers a frame.
      dtype: of them, see `store.STORAGE_DTYPES`.
      shards: of the whole job.
    """

    folder: pathlib.Path
    width: int
    dtype: str
    shards: int

    @contextlib.contextmanager
    def opened(self, number: int) -> Iterator['_DatasetSink']:
        """The shard takes its name once it is complete."""
        path = self._records.shard_path(self.folder, number, self.shards)
        with replaced_file(path) as partial, ShardWriter(partial, self._records.features) as writer:
            yield _DatasetSink(path, writer)

    def complete(self, summaries: Iterable[ShardSummary]) -> None:
        """Writes what TFDS opens the dataset by."""
        lengths, size = [], 0
        for summary in summaries:
            (output,) = summary.outputs
            lengths.append(output.records)
            size += output.bytes
        description = latent_dataset.describe(self.dtype)
        self._records.write_metadata(self.folder, lengths, size, description)

    @property
    def _records(self) -> RecordFormat:
        return latent_dataset.record_format(self.width, self.dtype)


class _DatasetSink:
    def __init__(self, path: pathlib.Path, writer: ShardWriter):
        self._path = path
        self._writer = writer
        self._records = 0

    def check(self, source: str, stored: StoredLatents) -> None:
        latent_dataset.check_size(source, stored)

    def write(self, source: str, stored: StoredLatents) -> None:
        self._records += latent_dataset.write_file(self._writer, source, stored)

    def outputs(self) -> tuple[Output, ...]:
        return (describe_output(self._path.parent, self._path.name, self._records),)

"""Which shards of a job are done, noted beside the results by whoever has worked on them.

In the output folder, beside the results and what `claim` notes: `shards/`, a summary of each shard
that is done; once all are, `manifest.json` and `failures.csv`.
"""

import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from m2l_jax.corpus import claim, manifest
from m2l_jax.corpus.plan import Item, Shard
from m2l_jax.corpus.summary import ShardSummary, from_json, to_json
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import flush, remove_leftovers, replaced_file

_SUMMARIES = 'shards'
_IN_A_FOLDER = 1000  # summaries


class Ledger:
    """What is done of a job, as its output folder has it.

    Processes on several machines may each have one of the same folder, if all see it.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = pathlib.Path(folder).absolute()  # workers may be elsewhere

    def claim(self, settings: Mapping[str, Any], items: Sequence[Item]) -> None:
        """Takes the folder for a job, unless it is another's; see `claim.claim`.

        Raises:
          InputError: if it is another's, contains other files, or cannot be written.
        """
        claim.claim(self.folder, settings, items)
        remove_leftovers(self.folder, deep=False)

    def is_done(self, shard: Shard) -> bool:
        """Whether a shard has been committed."""
        return self._path(shard.number).exists()

    def missing(self, shards: Iterable[Shard]) -> tuple[Shard, ...]:
        """Those of the shards that have not been committed."""
        done = {path.stem for path in self.folder.glob(f'{_SUMMARIES}/*/*.json')}
        return tuple(shard for shard in shards if self._path(shard.number).stem not in done)

    def commit(self, summary: ShardSummary) -> None:
        """Marks a shard as done, once its outputs are on the disk, and not only on their way.

        Raises:
          InputError: if they are not, or its summary cannot be written.
        """
        for output in summary.outputs:
            flush(self.folder / output.name)
        with replaced_file(self._path(summary.number)) as partial:
            partial.write_text(to_json(summary))
            flush(partial)

    def summaries(self, shards: Iterable[Shard]) -> Iterator[ShardSummary]:
        """The summary of each of the shards, all of which are done.

        Raises:
          InputError: if one is missing or damaged.
        """
        for shard in shards:
            path = self._path(shard.number)
            try:
                yield from_json(path.read_text())
            except (OSError, ValueError, LookupError, TypeError):
                raise InputError(
                    f'{path} is missing or damaged: remove it, and run the same command again'
                ) from None

    def forget_failures(self, shards: Iterable[Shard]) -> int:
        """Has those of the shards done again in which a file failed; returns how many.

        Their outputs stay, and are written again.
        """
        missing = set(self.missing(shards))
        done = [shard for shard in shards if shard not in missing]
        failed = [summary.number for summary in self.summaries(done) if summary.failures]
        if failed:
            manifest.remove(self.folder)  # it would tell of a job that is complete
        for number in failed:
            self._path(number).unlink(missing_ok=True)
        return len(failed)

    def reopen(self, shards: Iterable[Shard]) -> None:
        """Removes what tells of a complete job, if one of the shards is to be worked on.

        To be called before the work, whose outputs take the place of those that are told of.
        """
        if self.missing(shards):
            manifest.remove(self.folder)

    def finish(self, shards: Sequence[Shard]) -> bool:
        """Writes manifest and failures if all shards are done; returns whether they are.

        Every process of a job calls it at its end; who comes last, writes. The same summaries give
        the same files.

        Args:
          shards: all of the plan, not only this process's.

        Raises:
          InputError: if a summary is damaged, or a file cannot be written.
        """
        if not self.missing(shards):
            job = claim.read_job(self.folder)
            manifest.write(self.folder, job, lambda: self.summaries(shards))
        # Another process may have begun meanwhile to work on some again, and will finish itself.
        if self.missing(shards):
            manifest.remove(self.folder)
            return False
        remove_leftovers(self.folder, deep=True)
        return True

    def summary_name(self, number: int) -> str:
        """Where a shard's summary is, below the folder."""
        return f'{_SUMMARIES}/{number // _IN_A_FOLDER:03d}/{number:05d}.json'

    def _path(self, number: int) -> pathlib.Path:
        return self.folder / self.summary_name(number)

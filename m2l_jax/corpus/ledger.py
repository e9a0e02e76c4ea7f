"""The ledger of a job: notes in its output folder about settings, input and completed shards.

Beside the results are `job.json`, the settings and a digest of the input; `items.tsv`, a line of
size and name for each input; `shards/`, a summary of each completed shard; and after the last one
`failures.csv`, `warnings.csv` if there are any, and `manifest.json`.
"""

import contextlib
import csv
import dataclasses
import hashlib
import itertools
import json
import operator
import os
import pathlib
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from m2l_jax.corpus.plan import Item, Output, Shard, ShardSummary, parse_summary
from m2l_jax.data.tfds import INFO
from m2l_jax.interface import paths
from m2l_jax.interface import settings as compared
from m2l_jax.interface.errors import InputError

JOB = 'job.json'
MANIFEST = 'manifest.json'
_ITEMS = 'items.tsv'
_FAILURES = 'failures.csv'
_WARNINGS = 'warnings.csv'
_SUMMARIES = 'shards'
_IN_A_FOLDER = 1000  # summaries
_source = operator.attrgetter('source')

# Characters that would break a line or cannot be written, and the backslash that marks them.
_UNWRITABLE = re.compile('[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff\\\\]')


class Ledger:
    """A job's progress, in its output folder, which processes on several machines may share."""

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = pathlib.Path(folder).absolute()  # workers may be elsewhere

    def claim(self, settings: Mapping[str, Any], items: Sequence[Item]) -> None:
        """Notes settings and input in the folder, or compares them with its notes.

        Several processes may call it at once: one notes, the others compare.

        Args:
          settings: all that the output depends on beside the input, as JSON can hold it.
          items: the input, in any order; parts of one file count once.

        Raises:
          InputError: if the folder's notes differ, or it contains other files or cannot be written.
        """
        by_source = itertools.groupby(sorted(items, key=_source), key=_source)
        items = [next(parts) for _, parts in by_source]
        job = {'settings': json.loads(paths.to_json(settings)), 'input': _describe(items)}
        path = paths.make_folder(self.folder) / JOB
        if not path.exists():
            self._refuse_other_files()
            paths.create_file(path, paths.to_json(job) + '\n')
        noted = self._read_job()
        changes = compared.differences(noted['settings'], job['settings'], 'settings')
        if noted['input'] != job['input']:
            changes.append(f'input: {_name_changes(self.folder / _ITEMS, items)}')
        if changes:
            raise InputError(
                f'{self.folder} was begun otherwise ({"; ".join(changes)}): '
                'choose another --output, or run as before'
            )
        if not (self.folder / _ITEMS).exists():
            with (
                paths.replaced_file(self.folder / _ITEMS) as partial,
                partial.open('w', encoding='utf-8') as file,
            ):
                file.writelines(_lines(items))
        paths.remove_leftovers(self.folder, deep=False)

    def missing(self, shards: Iterable[Shard]) -> tuple[Shard, ...]:
        """Selects the shards that have not been committed."""
        done = {path.stem for path in self.folder.glob(f'{_SUMMARIES}/*/*.json')}
        return tuple(shard for shard in shards if self._path(shard.number).stem not in done)

    def commit(self, summary: ShardSummary) -> None:
        """Marks a shard as done, after flushing its outputs to the disk.

        Raises:
          InputError: if they or the summary cannot be written.
        """
        for output in summary.outputs:
            paths.flush(self.folder / output.name)
        with paths.replaced_file(self._path(summary.number)) as partial:
            partial.write_text(json.dumps(dataclasses.asdict(summary), indent=1) + '\n')
            paths.flush(partial)

    def summaries(self, shards: Iterable[Shard]) -> Iterator[ShardSummary]:
        """Yields the summaries of shards; raises an InputError if one is missing or damaged."""
        for shard in shards:
            path = self._path(shard.number)
            try:
                yield parse_summary(path.read_text())
            except (OSError, ValueError, LookupError, TypeError):
                raise InputError(
                    f'{path} is missing or damaged: remove it, and run the same command again'
                ) from None

    def forget_failures(self, shards: Iterable[Shard]) -> int:
        """Marks shards in which files failed as not done; returns their number.

        Their outputs stay until they are written again.
        """
        missing = set(self.missing(shards))
        done = [shard for shard in shards if shard not in missing]
        failed = [summary.number for summary in self.summaries(done) if summary.failures]
        if failed:
            self._remove_manifest()
        for number in failed:
            self._path(number).unlink(missing_ok=True)
        return len(failed)

    def reopen(self, shards: Iterable[Shard]) -> None:
        """Removes the files that mark a job as complete, if some of the shards are not done."""
        if self.missing(shards):
            self._remove_manifest()

    def finish(self, shards: Sequence[Shard]) -> bool:
        """Writes manifest and tables and returns True if all shards of the plan are done.

        Every process of a job calls it at its end, and the last one writes. The same summaries
        give the same files.

        Raises:
          InputError: if a summary is damaged, or a file cannot be written.
        """
        if not self.missing(shards):
            self._write_manifest(shards)
        # Another process may be redoing some by now, and will finish itself.
        if self.missing(shards):
            self._remove_manifest()
            return False
        paths.remove_leftovers(self.folder, deep=True)
        return True

    def discard(self, summaries: Iterable[ShardSummary]) -> None:
        """Removes all files of the job, and the folder if it is then empty."""
        for summary in summaries:
            for output in summary.outputs:
                (self.folder / output.name).unlink(missing_ok=True)
        shutil.rmtree(self.folder / _SUMMARIES, ignore_errors=True)
        for path in (*self.folder.glob('report*.json'), self.folder / _ITEMS, self.folder / JOB):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def summary_name(self, number: int) -> str:
        """Returns the path of a shard's summary below the folder."""
        return f'{_SUMMARIES}/{number // _IN_A_FOLDER:03d}/{number:05d}.json'

    def _path(self, number: int) -> pathlib.Path:
        return self.folder / self.summary_name(number)

    def _read_job(self) -> dict[str, Any]:
        path = self.folder / JOB
        try:
            job = json.loads(path.read_text())
            return {name: dict(job[name]) for name in ('settings', 'input')}
        except (OSError, ValueError, LookupError, TypeError):
            raise InputError(f'{path} is damaged: remove {self.folder} and begin again') from None

    def _refuse_other_files(self) -> None:
        names = [name for name in os.listdir(self.folder) if not name.endswith('.partial')]
        # If there is a job by now, another process has just begun, and these are its files.
        if names and not (self.folder / JOB).exists():
            raise InputError(
                f'{self.folder} contains other files ({min(names)!r}): '
                'choose a new or empty folder as --output'
            )

    def _write_manifest(self, shards: Sequence[Shard]) -> None:
        """Writes the tables, and last the manifest, which marks the job as complete.

        It holds `settings` and `input`, as in `job.json`; the totals `files` (done), `failures`,
        `warnings`, `hours` (of audio in the files done), `latents` (vectors, of all channels) and
        `bytes` (written); and `shards`, a line each, with its `outputs`.
        """
        failures: list[tuple[str, str]] = []
        warnings: list[tuple[str, str]] = []
        totals = dict.fromkeys(('files', 'failures', 'warnings', 'hours', 'latents', 'bytes'), 0)
        seconds = 0.0
        for summary in self.summaries(shards):
            failures.extend(summary.failures)
            warnings.extend(summary.warnings)
            totals['files'] += summary.files
            totals['latents'] += summary.latents
            totals['bytes'] += sum(output.bytes for output in summary.outputs)
            seconds += summary.seconds
        totals |= {'failures': len(failures), 'warnings': len(warnings), 'hours': seconds / 3600}
        _write_table(self.folder / _FAILURES, failures)
        if warnings:
            _write_table(self.folder / _WARNINGS, warnings)
        with paths.replaced_file(self.folder / MANIFEST) as partial, partial.open('w') as file:
            head = json.dumps({**self._read_job(), **totals}, indent=2).removesuffix('\n}')
            file.write(f'{head},\n  "shards": [')
            # Read again: the summaries of millions of files do not fit in memory.
            for place, summary in enumerate(self.summaries(shards)):
                shard = dataclasses.asdict(summary)
                shard |= {'failures': len(summary.failures), 'warnings': len(summary.warnings)}
                file.write(f'{"," if place else ""}\n    {json.dumps(shard)}')
            file.write('\n  ]\n}\n')

    def _remove_manifest(self) -> None:
        """Removes the files that mark the job as complete, a dataset's description first."""
        for name in (INFO, MANIFEST, _FAILURES, _WARNINGS):
            (self.folder / name).unlink(missing_ok=True)


def is_claimed(folder: str | os.PathLike[str]) -> bool:
    """True if a folder belongs to a job."""
    return os.path.exists(os.path.join(folder, JOB))


def read_manifest(
    folder: str | os.PathLike[str],
) -> tuple[dict[str, Any], list[Output], dict[str, int]]:
    """Reads a complete job's totals, outputs, and the shard number of each output's name.

    Raises:
      InputError: if the manifest is missing, damaged, or doesn't account for every input.
    """
    path = pathlib.Path(folder, MANIFEST)
    try:
        content = json.loads(path.read_text())
        shards = content.pop('shards')
        pairs = [(shard['number'], output) for shard in shards for output in shard['outputs']]
        outputs = [Output(**output) for _, output in pairs]
        shard_of = {output['name']: number for number, output in pairs}
        counted = [sum(shard[name] for shard in shards) for name in ('files', 'failures')]
        is_whole = counted == [content['files'], content['failures']]
    except FileNotFoundError:
        raise InputError(
            f'{path} does not exist: run the command to its end, with all of its shares, first'
        ) from None
    except (OSError, ValueError, LookupError, TypeError):
        is_whole = False
    if not is_whole:
        raise InputError(f'{path} is damaged: remove it, and run the same command again')
    return content, outputs, shard_of


def _write_table(path: pathlib.Path, rows: list[tuple[str, str]]) -> None:
    with (
        paths.replaced_file(path) as partial,
        # Bytes that are not UTF-8 are written as \udcNN, so that any reader opens the table.
        partial.open('w', encoding='utf-8', errors='backslashreplace', newline='') as file,
    ):
        table = csv.writer(file, lineterminator='\n')
        table.writerow(('file', 'reason'))
        table.writerows(sorted(rows))


def _describe(items: Sequence[Item]) -> dict[str, Any]:
    digest = hashlib.sha256()
    for line in _lines(items):
        digest.update(line.encode())
    total = sum(item.bytes for item in items)
    return {'files': len(items), 'bytes': total, 'sha256': digest.hexdigest()}


def _lines(items: Sequence[Item]) -> Iterator[str]:
    for item in items:
        source = _UNWRITABLE.sub(lambda match: f'\\u{ord(match[0]):04x}', item.source)
        yield f'{item.state}\t{source}\n'


def _name_changes(path: pathlib.Path, items: Sequence[Item]) -> str:
    """Counts the files that were added, removed and changed, and names the first."""
    try:
        old = _read_sizes(path.read_text(encoding='utf-8').splitlines(keepends=True))
    except (OSError, ValueError):
        return 'other files or sizes'
    new = _read_sizes(_lines(items))
    changes = {
        'added': new.keys() - old.keys(),
        'removed': old.keys() - new.keys(),
        'changed': {name for name in old.keys() & new.keys() if old[name] != new[name]},
    }
    counts = [f'{len(names)} {what}' for what, names in changes.items() if names]
    first = min(set().union(*changes.values()), default='')
    return f'{", ".join(counts)}, {first!r} first' if counts else 'other files or sizes'


def _read_sizes(lines: Iterable[str]) -> dict[str, str]:
    pairs = (line.rstrip('\n').split('\t') for line in lines)
    return {name: size for size, name in pairs}

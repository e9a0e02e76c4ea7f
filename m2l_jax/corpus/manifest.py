"""Tables of a complete job: its files, failures and warnings.

`manifest.json`, `failures.csv`, and, if there are any, `warnings.csv`.
"""

import csv
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from m2l_jax.corpus.summary import Output, ShardSummary
from m2l_jax.data.tfds import INFO
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import replaced_file

_MANIFEST = 'manifest.json'
_FAILURES = 'failures.csv'
_WARNINGS = 'warnings.csv'


def write(
    folder: pathlib.Path,
    job: Mapping[str, Any],
    read_summaries: Callable[[], Iterable[ShardSummary]],
) -> None:
    """Writes these files; the manifest last, for it says that the job is complete.

    The manifest holds `settings` and `input`, as in `job.json`; totals: `files` done, `failures`,
    `warnings`, `hours` of audio in the files done, `latents` (vectors, of all channels) and `bytes`
    written; and `shards`, a line each, with its `outputs`: `name`, `bytes`, `sha256` and `records`.

    Args:
      folder: for the files.
      job: what `claim.read_job` returns.
      read_summaries: reads those of all shards, in the plan's order. It is called twice: of
        millions of files they would not fit in memory.

    Raises:
      InputError: if a file cannot be written.
    """
    failures: list[tuple[str, str]] = []
    warnings: list[tuple[str, str]] = []
    totals = dict.fromkeys(('files', 'failures', 'warnings', 'hours', 'latents', 'bytes'), 0)
    seconds = 0.0
    for summary in read_summaries():
        failures.extend(summary.failures)
        warnings.extend(summary.warnings)
        totals['files'] += summary.files
        totals['latents'] += summary.latents
        totals['bytes'] += sum(output.bytes for output in summary.outputs)
        seconds += summary.seconds
    totals |= {'failures': len(failures), 'warnings': len(warnings), 'hours': seconds / 3600}
    _write_table(folder / _FAILURES, failures)
    if warnings:
        _write_table(folder / _WARNINGS, warnings)
    with replaced_file(folder / _MANIFEST) as partial, partial.open('w') as file:
        head = json.dumps({**job, **totals}, indent=2).removesuffix('\n}')
        file.write(f'{head},\n  "shards": [')
        for place, summary in enumerate(read_summaries()):
            shard = dataclasses.asdict(summary)
            # Which ones is in the tables.
            shard |= {'failures': len(summary.failures), 'warnings': len(summary.warnings)}
            file.write(f'{"," if place else ""}\n    {json.dumps(shard)}')
        file.write('\n  ]\n}\n')


def read(
    folder: str | os.PathLike[str],
) -> tuple[dict[str, Any], list[Output], dict[str, int]]:
    """The totals of a complete job, all that it has written, and each name's shard.

    Raises:
      InputError: if there is no manifest, it is damaged, or does not account for every input.
    """
    path = pathlib.Path(folder, _MANIFEST)
    try:
        content = json.loads(path.read_text())
        shards = content.pop('shards')
        outputs = [Output(**output) for shard in shards for output in shard['outputs']]
        shard_of = {
            output['name']: shard['number'] for shard in shards for output in shard['outputs']
        }
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


def remove(folder: pathlib.Path) -> None:
    """Removes all that tells of a complete job, a dataset's description first; it is to go on."""
    for name in (INFO, _MANIFEST, _FAILURES, _WARNINGS):
        (folder / name).unlink(missing_ok=True)


def _write_table(path: pathlib.Path, rows: list[tuple[str, str]]) -> None:
    with (
        replaced_file(path) as partial,
        # Bytes of names that are no UTF-8 are written as \udcNN, so that any reader opens it.
        partial.open('w', encoding='utf-8', errors='backslashreplace', newline='') as file,
    ):
        table = csv.writer(file, lineterminator='\n')
        table.writerow(('file', 'reason'))
        table.writerows(sorted(rows))

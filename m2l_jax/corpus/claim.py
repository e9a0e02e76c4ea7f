"""Whose an output folder is: the settings and the input that a job was begun with.

In the folder: `job.json`, settings and a digest of the input, and `items.tsv`, the input itself, a
line each of bytes and name.
"""

import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from m2l_jax.corpus.plan import Item
from m2l_jax.interface import settings as compared
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.json_files import to_json
from m2l_jax.interface.paths import create_file, make_folder, replaced_file

_JOB = 'job.json'
_ITEMS = 'items.tsv'

# What would break a line, or could not be written at all; and what marks them.
_UNWRITABLE = re.compile('[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff\\\\]')


def claim(folder: pathlib.Path, settings: Mapping[str, Any], items: Sequence[Item]) -> None:
    """Notes settings and input in a folder, or compares them with those that it was begun with.

    Several processes may do so at once: one notes, the others compare.

    Args:
      folder: new, empty, or of an earlier run.
      settings: all that the output depends on beside the input, as JSON can hold it.
      items: the input, in any order.

    Raises:
      InputError: if the folder was begun otherwise, contains other files, or cannot be written.
    """
    items = sorted(items, key=lambda item: item.source)
    job = {'settings': json.loads(to_json(settings)), 'input': _describe(items)}
    path = make_folder(folder) / _JOB
    if not path.exists():
        _refuse_other_files(path)
        create_file(path, to_json(job) + '\n')
    changes = compared.differences(read_job(folder)['settings'], job['settings'], 'settings')
    if read_job(folder)['input'] != job['input']:
        changes.append(f'input: {_name_changes(folder / _ITEMS, items)}')
    if changes:
        raise InputError(
            f'{folder} was begun otherwise ({"; ".join(changes)}): '
            'choose another --output, or run as before'
        )
    if not (folder / _ITEMS).exists():
        with replaced_file(folder / _ITEMS) as partial, partial.open('w', encoding='utf-8') as file:
            file.writelines(_lines(items))


def is_claimed(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is a job's."""
    return os.path.exists(os.path.join(folder, _JOB))


def read_job(folder: pathlib.Path) -> dict[str, Any]:
    """Settings and description of the input that a folder was begun with.

    Raises:
      InputError: if they cannot be read.
    """
    path = folder / _JOB
    try:
        job = json.loads(path.read_text())
        return {name: dict(job[name]) for name in ('settings', 'input')}
    except (OSError, ValueError, LookupError, TypeError):
        raise InputError(f'{path} is damaged: remove {folder} and begin again') from None


def _refuse_other_files(path: pathlib.Path) -> None:
    names = [name for name in os.listdir(path.parent) if not name.endswith('.partial')]
    # Unless another process has begun in the meantime, and these are its files.
    if names and not path.exists():
        raise InputError(
            f'{path.parent} contains other files ({min(names)!r}): '
            'choose a new or empty folder as --output'
        )


def _describe(items: Sequence[Item]) -> dict[str, Any]:
    digest = hashlib.sha256()
    for line in _lines(items):
        digest.update(line.encode())
    total = sum(item.bytes for item in items)
    return {'files': len(items), 'bytes': total, 'sha256': digest.hexdigest()}


def _lines(items: Sequence[Item]) -> Iterator[str]:
    for item in items:
        source = _UNWRITABLE.sub(lambda match: f'\\u{ord(match[0]):04x}', item.source)
        yield f'{item.bytes}\t{source}\n'


def _name_changes(path: pathlib.Path, items: Sequence[Item]) -> str:
    """How many files were added, removed and changed, and the first of them."""
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


def _read_sizes(lines: Iterator[str] | Sequence[str]) -> dict[str, str]:
    pairs = (line.rstrip('\n').split('\t') for line in lines)
    return {name: size for size, name in pairs}

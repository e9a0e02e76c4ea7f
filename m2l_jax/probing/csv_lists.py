"""Labelled clips of a CSV file with a line for each audio file."""

import collections
import csv
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence

from m2l_jax.evaluation.clips import read_sound
from m2l_jax.interface.errors import InputError, first_line
from m2l_jax.probing.examples import Example, draw, split_name
from m2l_jax.probing.labels import TASKS

_PATH, _LABEL, _SPLIT, _GROUP = 'path', 'label', 'split', 'group'


def read_csv(
    path: str | os.PathLike[str], tasks: Mapping[str, str], limit: int = 0, seed: int = 0
) -> list[Example]:
    """Reads a CSV file whose first line names its columns.

    `path` is of an audio file, relative to the CSV's folder. `split` is 'train', 'validation' or
    'test', or the number of a fold; `group` keeps clips together; both may be left out. A task's
    labels are in the column that is asked for, or else in that of its name, or in `label`; tags
    have `|` between them.

    Args:
      path: of the CSV.
      tasks: see `labels.choose_tasks`.
      limit, seed: see `examples.draw`.

    Raises:
      InputError: if it cannot be read, lacks a column, has one or a clip twice, or has a split of
        another name.
    """
    try:
        with open(path, newline='', encoding='utf-8-sig') as file:
            rows = csv.DictReader(file)
            columns = [name.strip() for name in rows.fieldnames or ()]
            rows.fieldnames = columns
            lines = [(rows.line_num, row) for row in rows]
    except OSError as error:
        raise InputError(f'{path} cannot be read ({error.strerror}): check --data') from None
    except (csv.Error, UnicodeError) as error:
        raise InputError(f'{path} is no CSV in UTF-8 ({first_line(error)})') from None
    if _PATH not in columns:
        raise InputError(f'{path} has no column {_PATH!r}: its first line must name the columns')
    repeated = [name for name, times in collections.Counter(columns).items() if name and times > 1]
    if repeated:
        raise InputError(f'{path} has two columns {repeated[0]!r}: rename or remove one')
    counts = collections.Counter((row[_PATH] or '').strip() for _, row in lines)
    if (most := counts.most_common(1)) and most[0][0] and most[0][1] > 1:
        raise InputError(
            f'{path} names {most[0][0]} {most[0][1]} times: give each clip one line, tags with | '
            'between them'
        )
    fields = {task: _column(path, columns, task, field) for task, field in tasks.items()}
    if not lines:
        raise InputError(f'{path} names no audio files')
    folder = pathlib.Path(path).parent
    return [_example(folder, path, line, row, fields) for line, row in draw(lines, limit, seed)]


def _column(path: str | os.PathLike[str], columns: Sequence[str], task: str, field: str) -> str:
    for name in (field,) if field else (task, _LABEL):
        if name in columns:
            return name
    wanted = repr(field) if field else f'{task!r} or {_LABEL!r}'
    raise InputError(f'{path} has no column {wanted}, only {", ".join(columns)}')


def _example(
    folder: pathlib.Path,
    path: str | os.PathLike[str],
    line: int,
    row: Mapping[str, str | None],
    fields: Mapping[str, str],
) -> Example:
    name = (row[_PATH] or '').strip()
    if not name:
        raise InputError(f'{path}, line {line} has no path')
    return Example(
        name,
        functools.partial(read_sound, str(folder / name)),
        {task: TASKS[task].parse(row[field]) for task, field in fields.items()},
        split_name(row.get(_SPLIT), f'{path}, line {line}'),
        (row.get(_GROUP) or '').strip(),
    )

"""Tasks, and the labels that each reads from a data set's annotations."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

from m2l_jax.interface.errors import InputError

_NAMES = ('C', 'C#', 'D', 'D#', 'E', 'F', 'F#', 'G', 'G#', 'A', 'A#', 'B')
_STEPS = {'c': 0, 'd': 2, 'e': 4, 'f': 5, 'g': 7, 'a': 9, 'b': 11}
_SIGNS = {'#': 1, '♯': 1, 'b': -1, '♭': -1, '': 0}
# Each tonic's major and minor key in turn.
KEYS = tuple(f'{name} {mode}' for name in _NAMES for mode in ('major', 'minor'))

_KEY = re.compile(r'([A-Ga-g])([#♯b♭]?)[_\s]*(.*)')
_MODES = {'major': 0, 'maj': 0, '': 0, 'M': 0, 'minor': 1, 'min': 1, 'm': 1}
_NOTE = re.compile(r'([A-Ga-g])([#♯b♭]?)\s*(-?\d*)')


@dataclasses.dataclass(frozen=True)
class Task:
    """A task: a kind of label and how predictions are scored.

    Attributes:
      name: of the task.
      parse: gives a clip's labels of an annotation; none of one that it does not know.
      is_tagging: a clip may have any number of labels; otherwise one.
    """

    name: str
    parse: Callable[[Any], tuple[str, ...]]
    is_tagging: bool = False

    def can_use(self, labels: Sequence[str]) -> bool:
        """False for no label or several where the task takes one."""
        return self.is_tagging or len(labels) == 1


def parse_class(value: Any) -> tuple[str, ...]:
    """Labels as text; none of an empty one or of None. Only a single one can be used."""
    return _listed(value)


def parse_tags(value: Any) -> tuple[str, ...]:
    """Labels of a list, or of a text with `|` between them; each once, sorted."""
    return tuple(sorted(set(_listed(value))))


def parse_key(value: Any) -> tuple[str, ...]:
    """A key of `KEYS`, of texts such as 'Db minor', 'C#m', 'F# maj' or 'A'.

    None of other modes, or of an unknown key. Several keys stay as they are written.
    """
    named = _listed(value)
    if len(named) > 1:
        return named
    match = _KEY.fullmatch(named[0]) if named else None
    mode = match and _MODES.get(match[3], _MODES.get(match[3].lower()))
    if match is None or mode is None:
        return ()
    return (KEYS[2 * _pitch_class(match) + mode],)


def parse_pitch_class(value: Any) -> tuple[str, ...]:
    """The note without its octave, 'C' to 'B' with sharps, of a name ('Db4') or MIDI number.

    Several notes stay as they are written.
    """
    named = _listed(value)
    if len(named) > 1:
        return named
    if named and re.fullmatch(r'\d+', named[0]):
        return (_NAMES[int(named[0]) % 12],)
    match = _NOTE.fullmatch(named[0]) if named else None
    return () if match is None else (_NAMES[_pitch_class(match)],)


TASKS = {
    task.name: task
    for task in (
        Task('tagging', parse_tags, is_tagging=True),
        Task('key', parse_key),
        Task('instrument', parse_class),
        Task('pitch', parse_class),
        Task('pitch_class', parse_pitch_class),
        Task('genre', parse_class),
        Task('classification', parse_class),
    )
}


def choose_tasks(names: Sequence[str]) -> dict[str, str]:
    """The field of annotations that each task reads, '' for the data set's own.

    Args:
      names: each `TASK` or `TASK:FIELD`.

    Raises:
      InputError: for no task, one that does not exist, or one that is named twice.
    """
    chosen: dict[str, str] = {}
    for each in names:
        name, _, field = each.partition(':')
        if name not in TASKS:
            raise InputError(f'--task={each}: there is no such task; choose of {", ".join(TASKS)}')
        if name in chosen:
            raise InputError(f'--task names {name} twice: run the second by itself')
        chosen[name] = field
    if not chosen:
        raise InputError(f'--task is empty: choose of {", ".join(TASKS)}')
    return chosen


def _listed(value: Any) -> tuple[str, ...]:
    """The texts of an annotation that are not empty."""
    if value is None:
        return ()
    if isinstance(value, bytes):
        value = value.decode(errors='replace')
    parts = value.split('|') if isinstance(value, str) else value
    parts = parts if isinstance(parts, list | tuple | set) else [parts]
    return tuple(text for text in (str(part).strip() for part in parts) if text)


def _pitch_class(match: re.Match[str]) -> int:
    return (_STEPS[match[1].lower()] + _SIGNS[match[2]]) % 12

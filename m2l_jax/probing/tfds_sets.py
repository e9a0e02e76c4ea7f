"""Labelled clips of TFDS datasets: NSynth, GTZAN, and others with audio and a label."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from m2l_jax.data.tfds import AudioRecords, split_names, split_of
from m2l_jax.interface.errors import InputError
from m2l_jax.probing.examples import TEST, TRAIN, Example, draw, split_name
from m2l_jax.probing.labels import TASKS

# The features of each task, the first one that there is.
_FEATURES = {
    'instrument': ('instrument/family', 'instrument'),
    'pitch': ('pitch',),
    'pitch_class': ('pitch',),
    'key': ('key',),
    'genre': ('genre',),
    'tagging': ('tags', 'labels'),
}
_LABEL = 'label'


def read_tfds(path: str, tasks: Mapping[str, str], limit: int = 0, seed: int = 0) -> list[Example]:
    """Reads the labels of a dataset's records, and leaves their audio for later.

    Args:
      path: `tfds:NAME` or a prepared dataset's folder: its splits for training, validation and
        test are kept. With `[SPLIT]`, or of a dataset with a single split, no clip has one.
      tasks: see `labels.choose_tasks`; a field is a feature, `outer/inner` where they are nested.
      limit, seed: see `examples.draw`.

    Raises:
      InputError: if TFDS cannot open it, or it lacks a feature.
    """
    parts = {split: AudioRecords(name) for name, split in _choose_splits(path).items()}
    records = [(split, part, n) for split, part in parts.items() for n in range(len(part))]
    features = next(iter(parts.values())).features
    fields = {task: _choose_feature(path, features, task, field) for task, field in tasks.items()}
    return [
        _example(part, number, split, fields) for split, part, number in draw(records, limit, seed)
    ]


def _choose_splits(path: str) -> dict[str, str]:
    """The split of `examples.SPLITS`, or '', of each path of records."""
    folder, _ = split_of(path)
    if folder != path:
        return {path: ''}
    names = split_names(folder)
    if len(names) < 2:
        return {f'{folder}[{names[0]}]' if names else folder: ''}
    known = {}
    for name in names:
        try:
            known[f'{folder}[{name}]'] = split_name(name, folder)
        except InputError:  # one that is for something else
            continue
    if not {TRAIN, TEST} <= set(known.values()):
        raise InputError(
            f'{path} has the splits {", ".join(names)}, without {TRAIN!r} and {TEST!r}: '
            f'pass {folder}[SPLIT], and splits are drawn'
        )
    return known


def _choose_feature(path: str, features: Any, task: str, field: str) -> tuple[str, Any]:
    """A feature's name, and the feature."""
    for name in (field,) if field else (*_FEATURES.get(task, ()), _LABEL):
        if (feature := _find(features, name)) is not None:
            return name, feature
    wanted = repr(field) if field else f'for {task}'
    raise InputError(
        f'{path} has no feature {wanted}, only {", ".join(sorted(features))}: '
        f'name one, --task={task}:FEATURE'
    )


def _find(tree: Any, name: str) -> Any:
    """The feature, or the value, of a name such as `instrument/family`; None for a branch."""
    outer, _, inner = name.partition('/')
    if name in tree:
        found = tree[name]
    elif inner and outer in tree and hasattr(tree[outer], 'keys'):
        found = _find(tree[outer], inner)
    else:
        return None
    return None if hasattr(found, 'keys') else found


def _example(
    records: AudioRecords, number: int, split: str, fields: Mapping[str, tuple[str, Any]]
) -> Example:
    record = records.fields(number)
    labels = {
        task: TASKS[task].parse(_as_text(_find(record, name), feature))
        for task, (name, feature) in fields.items()
    }
    return Example(records.name(number), functools.partial(records.read, number), labels, split)


def _as_text(value: Any, feature: Any) -> list[str]:
    """The names of a record's labels: of one, or of a sequence."""
    kind = getattr(feature, 'feature', feature)  # what a sequence is of
    names = getattr(kind, 'names', None)
    values = np.atleast_1d(value)
    if names is not None:
        return [names[int(each)] for each in values if each >= 0]  # -1: not known
    return [each.decode() if isinstance(each, bytes) else str(each) for each in values]

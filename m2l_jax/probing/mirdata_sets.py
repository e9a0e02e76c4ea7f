"""Labelled clips of data sets that mirdata knows: TinySOL, Beatport key and others."""

import contextlib
import dataclasses
import difflib
import functools
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from m2l_jax.evaluation.clips import read_sound
from m2l_jax.interface.devices import root_logger_kept
from m2l_jax.interface.errors import InputError, first_line
from m2l_jax.probing.examples import Example, draw, split_name
from m2l_jax.probing.labels import TASKS

_PREFIX = 'mirdata:'


@dataclasses.dataclass(frozen=True)
class _Known:
    """The attributes of a data set's tracks: of each task's label, and of the split, if any."""

    labels: Mapping[str, str]
    split: str = ''
    has_lists: bool = False  # of the tracks in each split, by the data set itself


_KNOWN = {
    'tinysol': _Known(
        {'instrument': 'instrument_full', 'pitch': 'pitch', 'pitch_class': 'pitch'}, 'split'
    ),
    'beatport_key': _Known({'key': 'key'}),
    'giantsteps_key': _Known({'key': 'key'}),
    'gtzan_genre': _Known({'genre': 'genre'}),
    'medley_solos_db': _Known({'instrument': 'instrument'}, 'subset'),
    'mtg_jamendo_autotagging_moodtheme': _Known({'tagging': 'tags'}, has_lists=True),
}


def is_mirdata(path: str) -> bool:
    """True for `mirdata:NAME`."""
    return path.startswith(_PREFIX)


def read_mirdata(
    path: str,
    data_home: str | os.PathLike[str] | None,
    tasks: Mapping[str, str],
    limit: int = 0,
    seed: int = 0,
) -> list[Example]:
    """Reads a data set's annotations by mirdata; nothing is downloaded, and no checksum compared.

    Args:
      path: `mirdata:NAME`, or `mirdata:NAME/VERSION` for another version than mirdata's default.
      data_home: folder of the data set; mirdata's own default if None. The index is looked for
        there too.
      tasks: see `labels.choose_tasks`; a field is an attribute of mirdata's tracks.
      limit, seed: see `examples.draw`.

    Raises:
      InputError: without mirdata, for an unknown data set, or if its index, its annotations or an
        attribute are missing.
    """
    name, _, version = path.removeprefix(_PREFIX).partition('/')
    dataset = _open(name, version, data_home)
    known = _KNOWN.get(name, _Known({}))
    attributes = {}
    for task, field in tasks.items():
        attributes[task] = field or known.labels.get(task, '')
        if not attributes[task]:
            raise InputError(
                f'{path} has no label that is known for {task}: name an attribute of its tracks, '
                f'--task={task}:ATTRIBUTE'
            )
    with _reading(path, dataset):
        tracks = [dataset.track(track_id) for track_id in draw(dataset.track_ids, limit, seed)]
        splits = _listed_splits(dataset) if known.has_lists else {}
    return [
        _example(path, dataset, track, attributes, known.split, splits.get(track.track_id, ''))
        for track in tracks
    ]


@root_logger_kept()
def _open(name: str, version: str, data_home: str | os.PathLike[str] | None) -> Any:
    """mirdata's data set, with the index in its folder if there is one."""
    try:
        import mirdata
    except ModuleNotFoundError as error:
        raise InputError(
            f"--data={_PREFIX}{name} needs {error.name}: pip install 'm2l-jax[probe]'"
        ) from None
    names = mirdata.list_datasets()
    if name not in names:
        near = difflib.get_close_matches(name, names, 3) or names
        raise InputError(f'mirdata has no data set {name!r}; is it {", ".join(near)}?')
    home = None if data_home is None else os.fspath(data_home)
    try:
        dataset = mirdata.initialize(name, data_home=home, version=version or 'default')
    except ValueError as error:
        raise InputError(f'{_PREFIX}{name}/{version}: {first_line(error)}') from None
    if not os.path.isdir(dataset.data_home):
        raise InputError(
            f'{dataset.data_home} does not exist: {_download(dataset)}, or correct --data_home'
        )
    own_index = pathlib.Path(dataset.data_home, os.path.basename(dataset.index_path))
    if own_index.is_file():
        dataset.index_path = str(own_index)
    if not os.path.isfile(dataset.index_path):
        raise InputError(
            f"mirdata's index of {name}, {own_index.name}, is missing: {_download(dataset, True)}, "
            f'or put it into {dataset.data_home}'
        )
    return dataset


def _download(dataset: Any, only_index: bool = False) -> str:
    """The remedy for missing files."""
    chosen = "['index']" if only_index else ''
    call = f'mirdata.initialize({dataset.name!r}, data_home={os.fspath(dataset.data_home)!r})'
    return f'download once, in Python, by `import mirdata; {call}.download({chosen})`'


@contextlib.contextmanager
def _reading(path: str, dataset: Any) -> Iterator[None]:
    """Turns what mirdata's readers raise into one line."""
    try:
        yield
    except FileNotFoundError as error:
        missing = error.filename or first_line(error)
        raise InputError(f'{path} lacks annotations ({missing}): {_download(dataset)}') from None
    except InputError:
        raise
    except Exception as error:  # each data set's reader has its own
        raise InputError(
            f'{path} cannot be read by mirdata ({type(error).__name__}: {first_line(error)}): '
            'check its folder and version'
        ) from None


def _listed_splits(dataset: Any) -> dict[str, str]:
    """The split of each track's id."""
    listed = dataset.get_track_splits()
    return {track_id: split for split, ids in listed.items() for track_id in ids}


def _example(
    path: str, dataset: Any, track: Any, attributes: Mapping[str, str], split_field: str, split: str
) -> Example:
    for name in attributes.values():
        if not hasattr(type(track), name) and name not in vars(track):
            has = sorted(each for each in {*dir(type(track)), *vars(track)} if each[0] != '_')
            raise InputError(f'{path}: tracks have no attribute {name!r}, only {", ".join(has)}')
    with _reading(path, dataset):
        values = {task: getattr(track, name) for task, name in attributes.items()}
        split = getattr(track, split_field) if split_field else split
    return Example(
        track.track_id,
        functools.partial(_read, track.audio_path, f'{path}: {track.track_id}'),
        {task: TASKS[task].parse(value) for task, value in values.items()},
        split_name(split, f'{path}: {track.track_id}'),
    )


def _read(audio_path: str | None, name: str, sample_rate: int) -> np.ndarray:
    if audio_path is None:
        raise InputError(f'{name} has no audio')
    return read_sound(audio_path, sample_rate)

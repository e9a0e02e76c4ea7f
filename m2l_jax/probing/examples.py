"""Labelled clips, as every data set is read."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from m2l_jax.interface.errors import InputError

TRAIN, VALIDATION, TEST = SPLITS = ('train', 'validation', 'test')

_Item = TypeVar('_Item')
_OTHER_NAMES = {'training': TRAIN, 'valid': VALIDATION, 'val': VALIDATION, 'dev': VALIDATION}
_OTHER_NAMES['testing'] = TEST


@dataclasses.dataclass(frozen=True)
class Example:
    """A clip that is not read yet, and its annotations.

    Attributes:
      name: of its file or record, for reports.
      read: gives `[channels, samples]`, float32, at a sample rate in Hz; raises InputError.
      labels: by task; empty where the annotation has none, several where it has several, though
        the task may take one: see `Task.can_use`.
      split: one of `SPLITS`, a fold's number, or '' where the data set states none.
      group: of clips that must be in one split, such as those of a song; '' for none.
    """

    name: str
    read: Callable[[int], np.ndarray]
    labels: Mapping[str, tuple[str, ...]]
    split: str = ''
    group: str = ''


def split_name(value: Any, where: str) -> str:
    """One of `SPLITS`, a fold's number, or '', of what a data set calls it.

    Raises:
      InputError: for other names; `where` is what it begins with.
    """
    name = '' if value is None else str(value).strip().lower()
    name = _OTHER_NAMES.get(name, name)
    if re.fullmatch(r'\d+', name):
        return str(int(name))
    if name and name not in SPLITS:
        raise InputError(
            f'{where} has the split {value!r}: use {", ".join(SPLITS)}, or numbers of folds'
        )
    return name


def draw(items: Sequence[_Item], limit: int, seed: int) -> list[_Item]:
    """Items in their order, or, of more than `limit`, so many that are drawn; 0 keeps all."""
    if not limit or len(items) <= limit:
        return list(items)
    chosen = np.random.default_rng(seed).permutation(len(items))[:limit]
    return [items[number] for number in sorted(chosen)]

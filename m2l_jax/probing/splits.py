"""Splits of labelled clips, and the classes that a probe learns."""

import collections
import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from m2l_jax.interface.errors import InputError
from m2l_jax.probing.examples import SPLITS, TEST, TRAIN, VALIDATION, Example
from m2l_jax.probing.labels import Task

_SHARES = (0.6, 0.2, 0.2)  # of data sets without splits
_WITHIN_TRAINING = (0.8, 0.2)  # of those without a validation split
_LEAST_FOLDS = 3
_MOST_LISTED = 10  # labels in an error's line


@dataclasses.dataclass(frozen=True)
class Problem:
    """A task on clips.

    Attributes:
      classes: names, of the training split, sorted.
      numbers: the clips of each split.
      targets: of each split, `[N]` numbers of classes; for tags `[N, tags]`, booleans.
      unseen: labels of other splits that training lacks, and their clips.
      untested: tags that no test clip has, or each: they have no figure.
    """

    classes: tuple[str, ...]
    numbers: Mapping[str, np.ndarray]
    targets: Mapping[str, np.ndarray]
    unseen: Mapping[str, int]
    untested: tuple[str, ...]


def assign_splits(
    examples: Sequence[Example], task: Task, seed: int = 0, fold: int = 0
) -> list[str]:
    """The split of each clip, '' for one that has no label of the task.

    Splits of the data set are kept. Of folds, `fold` is tested, the next one is for validation,
    the others for training. Without a validation split, a fifth of training becomes one. Without
    any, 60, 20 and 20 % are drawn by `seed`, each with its share of every label, as far as clips
    of one group stay together.

    Raises:
      InputError: if no clip has a label that can be used, only some clips have a split, folds or
        splits are missing, or clips of one group are in two.
    """
    labelled = [
        number for number, example in enumerate(examples) if task.can_use(example.labels[task.name])
    ]
    if not labelled and (several := count_several(examples, task)):
        raise InputError(
            f'{task.name} takes one label a clip, and no clip has just one, but several, such as '
            f"{next(iter(several))!r} ('|' is between labels): keep one, or use --task=tagging"
        )
    if not labelled:
        raise InputError(f'no clip has a label for {task.name}: check --task and its field')
    chosen = [examples[number] for number in labelled]
    found = _splits_of(chosen, task, seed, fold)
    splits = [''] * len(examples)
    for number, split in zip(labelled, found, strict=True):
        splits[number] = split
    return splits


def count_several(examples: Sequence[Example], task: Task) -> dict[str, int]:
    """Clips with several labels where the task takes one: how many have 'a|b', 'a|c', …."""
    if task.is_tagging:
        return {}
    labels = [example.labels[task.name] for example in examples]
    return dict(collections.Counter('|'.join(own) for own in labels if len(own) > 1))


def make_problem(examples: Sequence[Example], splits: Sequence[str], task: Task) -> Problem:
    """Chooses the classes, and the clips that have one of them.

    Clips of other splits whose label training lacks are left out, and counted; such tags, too.

    Raises:
      InputError: for one class only, or a split without clips.
    """
    labels = [example.labels[task.name] for example in examples]
    numbers = {split: [n for n, own in enumerate(splits) if own == split] for split in SPLITS}
    counts = collections.Counter(itertools.chain(*(labels[n] for n in numbers[TRAIN])))
    classes = tuple(sorted(counts))
    others = itertools.chain(*(labels[n] for part in (VALIDATION, TEST) for n in numbers[part]))
    unseen = collections.Counter(label for label in others if label not in counts)
    for split, part in numbers.items():
        used = part if task.is_tagging else [n for n in part if labels[n][0] in counts]
        if not used:
            lacking = sorted({labels[n][0] for n in part})
            raise InputError(f'{task.name}: {_describe_empty(split, lacking)}')
        numbers[split] = used
    if len(classes) < (1 if task.is_tagging else 2):
        only = f'one class only, {classes[0]!r}' if classes else 'no label at all'
        raise InputError(f'{task.name}: the training split has {only}: there is nothing to learn')
    places = {name: place for place, name in enumerate(classes)}
    targets = {
        split: _tags([labels[n] for n in part], places)
        if task.is_tagging
        else np.array([places[labels[n][0]] for n in part])
        for split, part in numbers.items()
    }
    untested = _untested(classes, targets[TEST]) if task.is_tagging else ()
    if task.is_tagging and len(untested) == len(classes):
        raise InputError(
            f'{task.name}: each tag is on all or none of the test clips: there is nothing to score'
        )
    arrays = {split: np.array(part) for split, part in numbers.items()}
    return Problem(classes, arrays, targets, dict(sorted(unseen.items())), untested)


def stratify(
    labels: Sequence[Collection[str]], groups: Sequence[str], shares: Sequence[float], seed: int
) -> np.ndarray:
    """Deals clips out to parts: `[N]`, each clip's part.

    Labels of fewest clips are dealt first, each to the part that lacks most of it (Sechidis et al.
    2011, "On the stratification of multi-label data"). Groups are dealt as one.

    Args:
      labels: of each clip.
      groups: of each clip; '' for a clip by itself.
      shares: of the parts, which add up to 1.
      seed: of the order of clips.
    """
    units: dict[str | int, list[int]] = collections.defaultdict(list)
    for number in np.random.default_rng(seed).permutation(len(labels)):
        units[groups[number] or int(number)].append(int(number))
    waiting = dict(enumerate(units.values()))
    own = {
        unit: collections.Counter(itertools.chain(*(labels[n] for n in clips)))
        for unit, clips in waiting.items()
    }
    with_label = collections.defaultdict(list)
    left: collections.Counter[str] = collections.Counter()
    for unit, counts in own.items():
        left.update(counts)
        for label in counts:
            with_label[label].append(unit)
    wanted = [{label: share * count for label, count in left.items()} for share in shares]
    room = [share * len(labels) for share in shares]
    parts = np.zeros(len(labels), int)

    def deal(unit: int, label: str | None) -> None:
        part = max(range(len(shares)), key=lambda p: (wanted[p].get(label, 0), room[p]))
        clips = waiting.pop(unit)
        parts[clips] = part
        room[part] -= len(clips)
        for each, count in own[unit].items():
            wanted[part][each] -= count
            left[each] -= count

    while left := +left:
        rarest = min(left, key=lambda label: (left[label], label))
        for unit in with_label[rarest]:
            if unit in waiting:
                deal(unit, rarest)
    for unit in list(waiting):
        deal(unit, None)
    return parts


def _describe_empty(split: str, lacking: Sequence[str]) -> str:
    """The reason why a split has no clip, and the remedy; `lacking` are labels not in training."""
    remedy = 'or leave the splits out and they are drawn'
    if not lacking:
        return f'the split {split!r} has no clip to use: add some, {remedy}'
    listed = ', '.join(lacking[:_MOST_LISTED]) + (', …' * (len(lacking) > _MOST_LISTED))
    return (
        f'the split {split!r} has no clip to use, since training lacks all its labels ({listed}): '
        f'add training clips with them, {remedy}'
    )


def _splits_of(examples: Sequence[Example], task: Task, seed: int, fold: int) -> list[str]:
    """The split of each of these, which all have a label."""
    given = [example.split for example in examples]
    names = set(given)
    if names == {''}:
        return _dealt(examples, task, _SHARES, seed)
    if '' in names:
        without = examples[given.index('')].name
        raise InputError(f'{without} has no split, and others have: give each one, or none')
    _check_groups(examples)
    if all(name.isdigit() for name in names):
        return _fold_splits(given, fold)
    if missing := {TRAIN, TEST} - names:
        raise InputError(f'no clip is in the split {min(missing)!r}: add some, or leave splits out')
    if others := names - set(SPLITS):
        raise InputError(f'splits are {min(others)!r} and {TRAIN!r}: use names or numbers of folds')
    if VALIDATION in names:
        return given
    training = [example for example in examples if example.split == TRAIN]
    dealt = iter(_dealt(training, task, _WITHIN_TRAINING, seed))
    return [next(dealt) if split == TRAIN else split for split in given]


def _check_groups(examples: Sequence[Example]) -> None:
    """Refuses given splits that have clips of one group in two."""
    split_of: dict[str, str] = {}
    for example in examples:
        first = split_of.setdefault(example.group, example.split) if example.group else ''
        if example.group and first != example.split:
            raise InputError(
                f'clips of the group {example.group!r} are in the splits {first!r} and '
                f'{example.split!r}: put them into one, or leave splits or groups out'
            )


def _dealt(
    examples: Sequence[Example], task: Task, shares: Sequence[float], seed: int
) -> list[str]:
    labels = [example.labels[task.name] for example in examples]
    parts = stratify(labels, [example.group for example in examples], shares, seed)
    return [SPLITS[part] for part in parts]


def _fold_splits(given: Sequence[str], fold: int) -> list[str]:
    folds = sorted({int(name) for name in given})
    if len(folds) < _LEAST_FOLDS:
        raise InputError(f'there are {len(folds)} folds: {_LEAST_FOLDS} at least are needed')
    if fold not in folds:
        raise InputError(f'--fold={fold}: folds are {", ".join(map(str, folds))}')
    after = folds[(folds.index(fold) + 1) % len(folds)]
    named = {fold: TEST, after: VALIDATION}
    return [named.get(int(name), TRAIN) for name in given]


def _tags(labels: Sequence[Collection[str]], places: Mapping[str, int]) -> np.ndarray:
    targets = np.zeros((len(labels), len(places)), bool)
    for row, own in zip(targets, labels, strict=True):
        row[[places[label] for label in own if label in places]] = True
    return targets


def _untested(classes: Sequence[str], targets: np.ndarray) -> tuple[str, ...]:
    some = np.any(targets, axis=0) & ~np.all(targets, axis=0)
    return tuple(name for name, is_tested in zip(classes, some, strict=True) if not is_tested)

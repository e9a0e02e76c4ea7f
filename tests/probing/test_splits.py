import collections

import numpy as np
import pytest

from m2l_jax.interface.errors import InputError
from m2l_jax.probing.examples import SPLITS, Example, draw, split_name
from m2l_jax.probing.labels import TASKS
from m2l_jax.probing.splits import assign_splits, count_several, make_problem, stratify

GENRE, TAGGING = TASKS['genre'], TASKS['tagging']


def example(label, split='', group='', name='clip'):
    labels = (label,) if isinstance(label, str) and label else tuple(label)
    return Example(name, None, {'genre': labels, 'tagging': labels}, split, group)


def test_each_label_has_its_share_in_each_part():
    labels = [('a',)] * 50 + [('b',)] * 20 + [('c',)] * 5
    parts = stratify(labels, [''] * 75, (0.6, 0.2, 0.2), 0)
    counts = collections.Counter(
        (label[0], part) for label, part in zip(labels, parts, strict=True)
    )
    assert [counts['a', part] for part in range(3)] == [30, 10, 10]
    assert [counts['b', part] for part in range(3)] == [12, 4, 4]
    assert [counts['c', part] for part in range(3)] == [3, 1, 1]
    assert np.array_equal(parts, stratify(labels, [''] * 75, (0.6, 0.2, 0.2), 0))
    assert not np.array_equal(parts, stratify(labels, [''] * 75, (0.6, 0.2, 0.2), 1))


def test_tags_are_shared_out_and_groups_stay_together():
    random = np.random.default_rng(0)
    labels = [tuple(name for name in 'abcd' if random.random() < 0.3) for _ in range(400)]
    groups = [str(number // 4) for number in range(400)]
    parts = stratify(labels, groups, (0.6, 0.2, 0.2), 0)
    assert all(len(set(parts[begin : begin + 4])) == 1 for begin in range(0, 400, 4))
    for name in 'abcd':
        has = np.array([name in own for own in labels])
        shares = [np.mean(parts[has] == part) for part in range(3)]
        np.testing.assert_allclose(shares, [0.6, 0.2, 0.2], atol=0.05)


def test_a_label_of_one_clip_is_for_training():
    labels = [('rare',)] + [('a',)] * 9
    assert all(stratify(labels, [''] * 10, (0.6, 0.2, 0.2), seed)[0] == 0 for seed in range(5))


def test_splits_of_the_data_set_are_kept():
    examples = [example('a', split) for split in SPLITS] + [example('', 'test')]
    assert assign_splits(examples, GENRE) == ['train', 'validation', 'test', '']
    assert assign_splits(examples, TAGGING) == ['train', 'validation', 'test', 'test']


def test_a_validation_split_is_taken_from_training():
    examples = [example('ab'[number % 2], 'train') for number in range(20)] + [example('a', 'test')]
    counts = collections.Counter(assign_splits(examples, GENRE))
    assert counts == {'train': 16, 'validation': 4, 'test': 1}


def test_of_folds_one_is_tested_and_the_next_one_validates():
    examples = [example('a', str(number)) for number in (0, 1, 2, 3)]
    assert assign_splits(examples, GENRE, fold=1) == ['train', 'test', 'validation', 'train']
    assert assign_splits(examples, GENRE, fold=3) == ['validation', 'train', 'train', 'test']


@pytest.mark.parametrize(
    ('splits', 'fold', 'message'),
    [
        (['0', '1', '2'], 3, '--fold=3: folds are 0, 1, 2'),
        (['0', '1', '0'], 0, 'there are 2 folds: 3 at least are needed'),
        (['train', '', 'test'], 0, 'clip has no split, and others have'),
        (['train', 'train', 'validation'], 0, "no clip is in the split 'test'"),
        (['train', 'test', '3'], 0, "splits are '3' and 'train'"),
    ],
)
def test_splits_that_cannot_be_used_are_refused(splits, fold, message):
    with pytest.raises(InputError, match=message):
        assign_splits([example('a', split) for split in splits], GENRE, fold=fold)


@pytest.mark.parametrize('splits', [('train', 'test'), ('train', 'validation'), ('2', '0')])
def test_given_splits_that_break_a_group_are_refused(splits):
    names = ('0', '1', '2') if splits[0] == '2' else SPLITS
    whole = [example('a', split, f'own {split}') for split in names for _ in range(2)]
    assert len(assign_splits(whole, GENRE)) == 6
    broken = [*whole, *(example('a', split, 'song') for split in splits)]
    first, second = splits
    message = f"clips of the group 'song' are in the splits '{first}' and '{second}'"
    with pytest.raises(InputError, match=message):
        assign_splits(broken, GENRE)


def test_clips_without_a_label_are_not_dealt():
    with pytest.raises(InputError, match='no clip has a label for genre'):
        assign_splits([example('')], GENRE)


def test_several_labels_are_named_where_a_task_takes_one():
    clips = [example(own) for own in (['a', 'b'], ['a'], ['c', 'b'], ['a', 'b'], [], ['a'], ['b'])]
    assert count_several(clips, GENRE) == {'a|b': 2, 'c|b': 1}
    assert count_several(clips, TAGGING) == {}
    dealt = assign_splits(clips, GENRE)
    assert [bool(split) for split in dealt] == [False, True, False, False, False, True, True]
    message = r"genre takes one label a clip, .* several, such as 'a\|b' \('\|' is between labels\)"
    with pytest.raises(InputError, match=message):
        assign_splits([clips[0], clips[4]], GENRE)


def problem(rows, task=GENRE):
    examples = [example(label, split) for label, split in rows]
    return make_problem(examples, [each.split for each in examples], task)


ROWS = [('a', 'train'), ('b', 'train'), ('a', 'validation'), ('b', 'test'), ('z', 'test')]


def test_labels_that_training_lacks_are_counted_and_left_out():
    found = problem(ROWS)
    assert (found.classes, found.unseen) == (('a', 'b'), {'z': 1})
    assert {split: part.tolist() for split, part in found.numbers.items()} == {
        'train': [0, 1],
        'validation': [2],
        'test': [3],
    }
    assert found.targets['test'].tolist() == [1]


def test_tags_become_columns():
    tags = (['a', 'b'], [], ['b'], ['a', 'z'], [])
    rows = list(zip(tags, ('train', 'train', 'validation', 'test', 'test'), strict=True))
    found = problem(rows, TAGGING)
    assert (found.classes, found.unseen, found.untested) == (('a', 'b'), {'z': 1}, ('b',))
    assert found.targets['train'].tolist() == [[1, 1], [0, 0]]
    assert found.targets['test'].tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize(
    ('rows', 'task', 'message'),
    [
        (
            [*ROWS[:3], ROWS[4], ('y', 'test')],
            GENRE,
            r"the split 'test' has no clip to use, since training lacks all its labels \(y, z\)",
        ),
        ([*ROWS[:2], ROWS[3]], GENRE, "the split 'validation' has no clip to use"),
        (ROWS[2:4], GENRE, "the split 'train' has no clip to use"),
        ([('a', split) for split in SPLITS], GENRE, "one class only, 'a': there is nothing"),
        ([('', split) for split in SPLITS], TAGGING, 'the training split has no label'),
        ([('a', split) for split in SPLITS], TAGGING, 'each tag is on all or none'),
    ],
)
def test_tasks_with_nothing_to_learn_or_score_are_refused(rows, task, message):
    with pytest.raises(InputError, match=message):
        problem(rows, task)


def test_names_of_splits():
    names = ('Train', 'valid', 'dev', 'TEST', 3, '', None, '03')
    assert [split_name(name, 'x') for name in names] == [
        *('train', 'validation', 'validation', 'test', '3', '', '', '3')
    ]
    with pytest.raises(InputError, match=r"a\.csv, line 2 has the split 'half': use train, "):
        split_name('half', 'a.csv, line 2')


def test_a_limit_draws_by_the_seed():
    assert draw(range(5), 0, 0) == draw(range(5), 5, 0) == [0, 1, 2, 3, 4]
    drawn = draw(range(100), 10, 1)
    assert len(set(drawn)) == 10
    assert drawn == sorted(drawn) == draw(range(100), 10, 1) != draw(range(100), 10, 2)

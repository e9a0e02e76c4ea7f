import pytest

from m2l_jax.interface.errors import InputError
from m2l_jax.probing.labels import (
    KEYS,
    TASKS,
    choose_tasks,
    parse_class,
    parse_key,
    parse_pitch_class,
    parse_tags,
)


@pytest.mark.parametrize(
    ('value', 'key'),
    [
        ('C major', 'C major'),
        ('Db minor', 'C# minor'),
        ('C#m', 'C# minor'),
        ('F#_ minor', 'F# minor'),
        ('bb maj', 'A# major'),
        ('A', 'A major'),
        ('B♭ Minor', 'A# minor'),
        (['E minor'], 'E minor'),
        ('GM', 'G major'),
    ],
)
def test_keys_have_one_name(value, key):
    assert parse_key(value) == (key,)
    assert key in KEYS


@pytest.mark.parametrize('value', ['x', '', None, 'C other', 'D dorian'])
def test_other_keys_have_none(value):
    assert parse_key(value) == ()


def test_pitch_classes_are_of_names_and_of_numbers():
    notes = ('A#1', 'Bb4', '58', 58, 'C-1', 'B', b'G4')
    assert [parse_pitch_class(note) for note in notes] == [
        (name,) for name in ('A#', 'A#', 'A#', 'A#', 'C', 'B', 'G')
    ]
    assert parse_pitch_class('H4') == ()


def test_classes_are_single_and_tags_are_any_number():
    assert parse_class('Bass Tuba') == ('Bass Tuba',)
    assert parse_class(7) == ('7',)
    assert parse_class(' ') == parse_class(None) == ()
    assert parse_tags('b| a|b|') == parse_tags(['a', 'b']) == ('a', 'b')
    assert parse_tags('') == ()


@pytest.mark.parametrize('name', ['genre', 'key', 'pitch_class'])
def test_several_labels_are_kept_and_not_used_where_a_task_takes_one(name):
    labels = TASKS[name].parse('C| A minor')
    assert labels == ('C', 'A minor')
    assert not TASKS[name].can_use(labels)
    assert not TASKS[name].can_use(())
    assert TASKS[name].can_use(('C',))
    assert TASKS['tagging'].can_use(labels)


def test_tasks_may_name_their_field():
    assert choose_tasks(['pitch', 'instrument:family']) == {'pitch': '', 'instrument': 'family'}


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        (['colour'], '--task=colour: there is no such task; choose of tagging, key, '),
        (['pitch', 'pitch:x'], '--task names pitch twice'),
        ([], '--task is empty'),
    ],
)
def test_unknown_tasks_are_refused(names, message):
    with pytest.raises(InputError, match=message):
        choose_tasks(names)

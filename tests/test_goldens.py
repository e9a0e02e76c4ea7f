"""The fast part of `python -m tools.goldens`: what no change of the code may change."""

import json

import pytest

from tools import goldens


@pytest.fixture(scope='module')
def stored():
    return json.loads(goldens.GOLDENS.read_text())


@pytest.mark.parametrize('section', ['parameters', 'streams', 'flags'])
def test_goldens_are_as_stored(stored, section):
    found = json.loads(json.dumps(goldens.SECTIONS[section]()))
    assert not goldens.differences(stored[section], found, section)


def test_each_section_is_stored(stored):
    assert list(stored) == list(goldens.SECTIONS)


def test_differences_are_told_in_lines():
    old = {'a': 1.0, 'b': 'x', 'gone': 1, 'list': [1, 2]}
    new = {'a': 1.00001, 'b': 'y', 'new': 2, 'list': [1, 4]}
    assert goldens.differences(old, new, 'part') == [
        'part: gone is gone',
        'part: new is new: 2',
        'part: b: x -> y',
        'part: list[1]: 2 -> 4 (+100.0 %)',
    ]

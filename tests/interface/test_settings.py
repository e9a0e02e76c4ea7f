import dataclasses

import ml_collections
import pytest

from m2l_jax.interface.errors import InputError
from m2l_jax.interface.settings import build, differences


@dataclasses.dataclass(frozen=True)
class Inner:
    size: int = 3
    factors: tuple[tuple[int, int], ...] = ((1, 2),)


@dataclasses.dataclass(frozen=True)
class Outer:
    rate: float
    name: str
    inner: Inner = Inner()


def test_builds_from_config_dict_and_from_json_lists():
    config = ml_collections.ConfigDict({'rate': 1, 'name': 'a', 'inner': {'size': 4}})
    assert build(Outer, config) == Outer(1.0, 'a', Inner(4))
    assert isinstance(build(Outer, config).rate, float)
    json = {'rate': 0.5, 'name': 'b', 'inner': {'size': 1, 'factors': [[4, 1], [2, 2]]}}
    assert build(Outer, json).inner.factors == ((4, 1), (2, 2))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'inner': {'sise': 4}}, "config.inner has no field 'sise'; did you mean 'size'?"),
        ({'zzz': 4}, "config has no field 'zzz'; it has rate, name, inner"),
        ({'name': 3}, 'config.name must be of type str, not 3'),
        ({'name': None}, 'config.name is not set: pass --config.name=VALUE'),
        ({'rate': True}, 'config.rate must be of type float, not True'),
        ({'inner': 5}, 'config.inner must hold named fields, not 5'),
        ({'inner': {'factors': 5}}, 'config.inner.factors must be a tuple, not 5'),
        ({'inner': {'factors': [[1]]}}, r'config.inner.factors\[0\] must have 2 entries, not 1'),
    ],
)
def test_a_wrong_field_is_named(change, message):
    with pytest.raises(InputError, match=message):
        build(Outer, {'rate': 0.5, 'name': 'a', **change})


def test_a_missing_field_is_named():
    with pytest.raises(InputError, match=r'config\.name is missing'):
        build(Outer, {'rate': 0.5})


def test_differences_name_the_fields():
    old, new = Outer(0.5, 'a'), Outer(0.5, 'b', Inner(4))
    assert differences(old, new) == ["config.name: 'a' -> 'b'", 'config.inner.size: 3 -> 4']
    assert differences(old, old) == []


def test_differences_of_mappings_name_the_fields():
    old = {'rate': 1, 'inner': {'size': 3, 'gone': 'x'}, 'none': None}
    new = {'rate': 2, 'inner': {'size': 3}, 'new': [1]}
    assert differences(old, new, 'settings') == [
        'settings.rate: 1 -> 2',
        "settings.inner.gone: 'x' -> None",
        'settings.new: None -> [1]',
    ]

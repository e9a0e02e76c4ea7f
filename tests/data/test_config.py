import dataclasses

import pytest

from m2l_jax.data.config import Collection, DataConfig
from m2l_jax.interface.errors import InputError

CONFIG = DataConfig(
    path='/music',
    mix=(),
    resident=False,
    batch_size=4,
    crop_frames=8,
    min_rms=0.001,
    representation='waveform',
    workers=2,
    prefetch=2,
)


def test_a_path_is_a_mix_of_one():
    assert CONFIG.collections == (Collection('/music', '/music', 1.0),)
    mixed = dataclasses.replace(CONFIG, path='', mix=(('a', '/a', 0.7), ('b', '/b', 0.3)))
    assert mixed.collections == (Collection('a', '/a', 0.7), Collection('b', '/b', 0.3))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'representation': 'mel'}, "representation='mel' must be"),
        ({'batch_size': 0}, 'batch_size=0 must be at least 1'),
        ({'path': ''}, r'data\.path and config\.data\.mix are not set: pass --config\.data\.path'),
        ({'mix': (('a', '/a', 1.0),)}, 'are both set'),
        ({'path': '', 'mix': (('a', '/a', 0.7), ('b', '/b', 0.2))}, 'add up to 0.9, not to 1'),
        ({'path': '', 'mix': (('a', '/a', 1.5), ('b', '/b', -0.5))}, "-0.5 of 'b' must be above"),
        ({'path': '', 'mix': (('a', '/a', float('nan')),)}, "nan of 'a' must be above 0"),
        ({'path': '', 'mix': (('a', ' ', 1.0),)}, r"\('a', ' ', 1.0\) lacks a name or a path"),
        ({'path': '', 'mix': (('a', '/a', 0.5), ('a', '/b', 0.5))}, "two .* of the name 'a'"),
    ],
)
def test_wrong_data_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(CONFIG, **change)

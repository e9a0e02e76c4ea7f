"""Fields of a choice by name, from the command line."""

import sys

import pytest
from absl import flags

from m2l_jax.configs import small
from m2l_jax.interface import command
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.settings import build
from m2l_jax.training.config import TrainingConfig


@pytest.fixture
def read(monkeypatch):
    """Reads the config `small` with overrides, as a command does."""

    def parse(*overrides):
        flags_given = [f'--config.{each}' for each in (*overrides, 'data.path=/music')]
        monkeypatch.setattr(sys, 'argv', ['train', '--config=small', *flags_given])
        command.define_config()
        flags.FLAGS(sys.argv)
        return command.read_config(TrainingConfig)

    yield parse
    for name in list(flags.FLAGS):
        if name.partition('.')[0] == 'config':
            delattr(flags.FLAGS, name)


@pytest.mark.parametrize(
    ('overrides', 'section', 'expected'),
    [
        (
            ('optimizer.momentum=0.9', 'optimizer.name=muon'),
            'optimizer',
            {'name': 'muon', 'momentum': 0.9, 'b2': 0.99},
        ),
        (
            ('optimizer.name=adamw', 'optimizer.weight_decay=1'),
            'optimizer',
            {'name': 'adamw', 'weight_decay': 1.0},
        ),
        (
            ('consistency.schedule.name=denoising', 'consistency.schedule.denoising_part=0.3'),
            'consistency.schedule',
            {'denoising_part': 0.3, 'start_exponent': 0.0, 'end_exponent': 1.5},
        ),
        (
            ('consistency.density.name=mixture', 'consistency.density.high_share=0.3'),
            'consistency.density',
            {'high_share': 0.3, 'high_sigma': 10.0, 'log_sigma_std': 2.3},
        ),
        (  # the exponents of the config's own schedule are left out
            ('consistency.schedule.name=doubling', 'consistency.schedule.end_steps=640'),
            'consistency.schedule',
            {'name': 'doubling', 'start_steps': 10, 'end_steps': 640},
        ),
        (('consistency.density.name=uniform',), 'consistency.density', {'name': 'uniform'}),
    ],
)
def test_fields_of_the_chosen_name_are_taken(read, overrides, section, expected):
    settings = build(TrainingConfig, read(*overrides))
    for name in section.split('.'):
        settings = getattr(settings, name)
    values = {name: getattr(settings, name) for name in expected}
    assert values == expected
    assert all(type(values[name]) is type(expected[name]) for name in expected)


@pytest.mark.parametrize(
    ('overrides', 'message'),
    [
        (
            ('optimizer.momentum=0.9',),
            r'^config\.optimizer\.momentum is for config\.optimizer\.name=muon, not for radam: '
            'choose that name, or leave momentum out$',
        ),
        (
            ('consistency.schedule.start_steps=2',),
            r'^config\.consistency\.schedule\.start_steps is for '
            r'config\.consistency\.schedule\.name=doubling or discrete, not for exponential: ',
        ),
        (
            ('consistency.schedule.name=doubling', 'consistency.schedule.end_exponent=2.0'),
            r'schedule\.end_exponent is for .*name=exponential or denoising, not for doubling: ',
        ),
        (
            ('optimizer.name=muon', 'optimizer.momentun=0.9'),
            r"^config\.optimizer has no field 'momentun'; did you mean 'momentum'\?$",
        ),
        (
            ('optimizer.lerning_rate=0.1',),
            r"^config\.optimizer has no field 'lerning_rate'; did you mean 'learning_rate'\?$",
        ),
        (('optimizer.name=mun',), r"^config\.optimizer\.name='mun' must be one of radam, adamw, m"),
        (('sed=1',), r"^config has no field 'sed'; did you mean 'seed'\?$"),
    ],
)
def test_other_fields_are_refused(read, overrides, message):
    with pytest.raises(InputError, match=message):
        read(*overrides)


@pytest.mark.parametrize(
    ('returned', 'message'),
    [
        ('config.to_dict()', ''),
        ('FrozenConfigDict(config)', ''),
        ('None', 'returns NoneType, not a C'),
    ],
)
def test_a_file_may_return_any_mapping(monkeypatch, tmp_path, returned, message):
    path = tmp_path / 'mine.py'
    path.write_text(
        'from ml_collections import FrozenConfigDict\n'
        'from m2l_jax.configs.small import get_config as base\n'
        f'def get_config():\n    config = base()\n    return {returned}\n'
    )
    parse = command._ConfigParser('config', lock_config=False).parse
    if message:
        with pytest.raises(InputError, match=message):
            parse(str(path))
    else:
        config = parse(str(path))
        config.optimizer.momentum = 0.9
        assert config.data.batch_size == small.get_config().data.batch_size


def test_what_the_chosen_name_lacks_is_logged(read, caplog):
    with caplog.at_level('INFO'):
        read('consistency.density.name=uniform')
    told = 'config.consistency.density.name=uniform has no log_sigma_mean, log_sigma_std: left out'
    assert caplog.messages == [told]


def test_a_field_in_a_given_section_is_given(read):
    section = "optimizer={'name': 'muon', 'learning_rate': 0.1, 'weight_decay': 0.3}"
    with pytest.raises(
        InputError, match=r'optimizer\.weight_decay is for .*name=adamw, not for muo'
    ):
        read(section)


def test_a_choices_field_of_another_type_is_refused(read):
    config = read('optimizer.name=muon', 'optimizer.momentum=much')
    with pytest.raises(InputError, match=r"momentum must be of type float, not 'much'"):
        build(TrainingConfig, config)


def test_what_is_not_given_does_not_change(read):
    config = small.get_config()
    config.data.path = '/music'
    assert read().to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ('override', 'expected'),
    [
        ('optimizer.ema_profiles=0.05', (0.05,)),
        ('optimizer.ema_profiles=(0.05, 0.1)', (0.05, 0.1)),
        ('model.channel_multipliers=2', (2,)),
        ('model.attention=True', (True,)),
    ],
)
def test_a_value_alone_is_a_tuple_of_one(read, override, expected):
    section, _, name = override.partition('=')[0].partition('.')
    assert read(override)[section][name] == expected

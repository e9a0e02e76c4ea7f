import logging

import numpy as np
import pytest
import soundfile

from m2l_jax.audio import files
from m2l_jax.audio import levels as levels_module
from m2l_jax.audio.levels import Levels, levels_of
from m2l_jax.codec.arrays import as_waveform
from tests.conftest import make_music

MUSIC = make_music(0.5, channels=2)
LOUD = MUSIC / np.abs(MUSIC).max()


@pytest.mark.parametrize(
    ('waveform', 'oddity'),
    [
        (MUSIC, ''),
        (LOUD * 1.5, ''),
        (LOUD * -8, ''),
        (LOUD * 100, 'too loud: peak 100 of full scale 1; divide its samples by 128'),
        (LOUD * -32_768, 'too loud: peak 32768 of full scale 1; divide its samples by 32768'),
        (LOUD * 2**23, 'too loud: peak 8388608 of full scale 1; divide its samples by 8388608'),
        (LOUD * 1e30, 'too loud: peak 1e+30 of full scale 1; divide its samples by 1e+30'),
        (np.zeros((2, 9)), 'all samples are equal (0.0): silence'),
        (np.full((2, 9), 0.25), 'all samples are equal (0.25): no sound'),
        (np.float32([[0.5] * 9, [0] * 9]), 'all samples are equal (0.0, 0.5): no sound'),
        (np.float32([[0] * 9, [0] * 8 + [1e-9]]), ''),
        (np.zeros((2, 0)), ''),
    ],
)
def test_oddities_of_levels(waveform, oddity):
    waveform = waveform.astype(np.float32)
    assert levels_of(waveform).oddity() == oddity
    levels = Levels()
    blocks = [waveform.T[:3], waveform.T[3:5], waveform.T[5:]]
    assert [len(block) for block in levels.measured(blocks)] == [len(block) for block in blocks]
    assert levels.oddity() == oddity


@pytest.fixture
def warned(caplog, monkeypatch):
    monkeypatch.setattr(levels_module, '_logged', set())  # not those of other tests
    caplog.set_level(logging.WARNING, 'm2l_jax')
    return caplog


def test_a_file_that_is_read_is_named_once(tmp_path, warned):
    loud, constant = tmp_path / 'loud.wav', tmp_path / 'constant.wav'
    soundfile.write(loud, (LOUD * 32_768).T, 44_100, subtype='FLOAT')
    soundfile.write(constant, np.full(20_000, 0.25), 48_000)
    for _ in range(2):
        files.read(loud, 44_100, 1000, 10_000)
        files.read(loud, 44_100)
        files.read(constant, 44_100, 1000, 10_000)  # a part may well be
    assert len(warned.messages) == 1
    assert warned.messages[0].startswith(f'{loud}: too loud: peak ')
    for _ in files.read_blocks(constant, 44_100, 5_000):
        pass
    as_waveform(constant, 48_000)
    assert warned.messages[1:] == [f'{constant}: all samples are equal (0.25): no sound']


def test_an_array_that_is_handed_over_is_described(warned):
    as_waveform(np.zeros((1, 9000), np.float32), 44_100)
    as_waveform(LOUD * 32_768, 44_100)
    as_waveform(MUSIC, 44_100)
    assert warned.messages == [
        'audio: all samples are equal (0.0): silence',
        'audio: too loud: peak 32768 of full scale 1; divide its samples by 32768',
    ]


def test_quantisation():
    values = np.array([0, 0.5, -1, 1, 3, -3, 0.4 / 32768, 0.6 / 32768], np.float32)
    expected = [0, 16_384, -32_768, 32_767, 32_767, -32_768, 0, 1]
    np.testing.assert_array_equal(levels_module.to_int16(values), expected)
    every = np.arange(-32_768, 32_768).astype(np.int16)
    stored = every.astype(np.float32) / levels_module.FULL_SCALE
    np.testing.assert_array_equal(levels_module.to_int16(stored), every)

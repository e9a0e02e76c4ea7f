import dataclasses

import numpy as np
import pytest

from m2l_jax.evaluation.listening import stimuli
from m2l_jax.evaluation.loudness import integrated_loudness
from m2l_jax.interface.errors import InputError
from tests.conftest import make_music

RATE = 44_100


@pytest.fixture
def clip():
    music = make_music(1, channels=2)
    return stimuli.Comparison('a', RATE, music, {'x': 0.5 * music, 'y': -music})


def decibels(taps, hertz, rate):
    delays = np.arange(len(taps))
    response = np.exp(-2j * np.pi * np.asarray(hertz)[:, None] / rate * delays) @ taps
    return 20 * np.log10(np.maximum(np.abs(response), 1e-9))


def test_gains_give_all_the_loudness_of_the_first():
    music = 0.2 * make_music(2)
    bright = np.diff(music, prepend=0)
    gains = stimuli.matching_gains([music, 0.25 * music, bright], RATE)
    assert gains[0] == 1
    assert gains[1] == pytest.approx(4)
    expected = integrated_loudness(music, RATE)
    assert integrated_loudness(gains[2] * bright, RATE) == pytest.approx(expected, abs=1e-6)


def test_no_sound_clips():
    music = make_music(1)
    music /= np.max(np.abs(music))
    click = np.zeros_like(music)
    click[0, 1000::4000] = 0.5  # it would need a peak far above 1
    gains = stimuli.matching_gains([music, click], RATE)
    assert gains[1] * 0.5 == pytest.approx(0.98)
    assert integrated_loudness(gains[0] * music, RATE) == pytest.approx(
        integrated_loudness(gains[1] * click, RATE), abs=1e-6
    )


def test_silence_has_no_gain():
    music = 0.5 * make_music(1)
    assert stimuli.matching_gains([music, 0 * music], RATE) == [1, 1]
    assert stimuli.matching_gains([0 * music, music], RATE) == [1, 1]


@pytest.mark.parametrize('rate', [16_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize('name', stimuli.ANCHORS)
def test_anchors_keep_to_the_recommendation(name, rate):
    filters = stimuli.anchor_filters(rate)
    cut, _ = stimuli.ANCHORS[name]
    taps = filters[name]
    np.testing.assert_array_less(np.abs(decibels(taps, np.linspace(0, cut, 100), rate)), 0.1)
    above = np.linspace(cut + 500, rate / 2, 200)
    np.testing.assert_array_less(decibels(taps, above, rate), -55)
    np.testing.assert_array_equal(taps, taps[::-1])


@pytest.mark.parametrize(('rate', 'names'), [(14_000, ['anchor35']), (7000, [])])
def test_an_anchor_that_cuts_nothing_is_left_out(rate, names):
    assert list(stimuli.anchor_filters(rate)) == names


def test_filtering_has_no_delay():
    time = np.arange(RATE) / RATE
    low, high = np.sin(2 * np.pi * 1000 * time), np.sin(2 * np.pi * 5000 * time)
    taps = stimuli.anchor_filters(RATE)['anchor35']
    filtered = stimuli.apply_filter(np.stack([low + high, high]), taps)
    middle = slice(1000, -1000)
    np.testing.assert_allclose(filtered[0, middle], low[middle], atol=0.01)
    np.testing.assert_allclose(filtered[1, middle], 0, atol=0.002)
    assert filtered.dtype == np.float32


def test_clips_that_fit_are_accepted(clip):
    stimuli.check_comparisons([clip, dataclasses.replace(clip, name='b')])


NOISE = np.zeros((2, 3000), np.float32)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'name': 'a'}, r"two clips have the name 'a': give each its own"),
        ({'sample_rate': 48_000}, r"'b' has 48000 Hz, 'a' 44100 Hz: resample them to one rate"),
        (
            {'reconstructions': {'x': NOISE}},
            r"'b' has reconstructions by \['x'\], 'a' by",
        ),
        ({'original': NOISE}, r"'b': 'x' has shape \(2, 44100\), the original \(2, 3000\): cut"),
        ({'original': NOISE[0]}, r"'b' has shape \(3000,\): it must be \[channels, samples\]"),
        ({'original': NOISE[:, :2047]}, r'at least 2048 samples'),
        ({'original': np.zeros((3, 3000))}, r'one or two channels'),
        (
            {'reconstructions': {'x': np.full((2, RATE), np.nan), 'y': np.zeros((2, RATE))}},
            r"'b': 'x' holds NaN or infinite samples",
        ),
    ],
)
def test_clips_that_do_not_fit_are_named(clip, changes, message):
    other = dataclasses.replace(clip, **({'name': 'b'} | changes))
    with pytest.raises(InputError, match=message):
        stimuli.check_comparisons([clip, other])


def test_there_must_be_a_clip():
    with pytest.raises(InputError, match='no clips to listen to: give at least one'):
        stimuli.check_comparisons([])

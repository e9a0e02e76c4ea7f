import importlib.util

import numpy as np
import pytest

from m2l_jax.evaluation.perception import notes
from m2l_jax.evaluation.perception.notes import Notes, f_measure, find_notes, note_agreement
from m2l_jax.evaluation.perception.packages import describe_missing

RATE = 44_100
GAP = 0.4  # seconds from a note to the next
KEYS = (57, 64, 60, 67, 62, 69, 65, 72, 59, 66)

pytestmark = pytest.mark.skipif(
    bool(describe_missing(notes.NEEDS)), reason=describe_missing(notes.NEEDS)
)


def render(keys, rate=RATE):
    """Decaying tones one after another from 0.1 s on, none for a key of None; `[1, samples]`."""
    time = np.arange(round((GAP * len(keys) + 0.4) * rate)) / rate
    waveform = np.zeros_like(time)
    for number, key in enumerate(keys):
        if key is None:
            continue
        since = time - 0.1 - GAP * number
        attack, release = np.clip(since / 0.005, 0, 1), np.clip((GAP - 0.03 - since) / 0.05, 0, 1)
        envelope = attack * release * np.exp(-3 * np.maximum(since, 0))
        for harmonic in (1, 2, 3):
            phase = 2 * np.pi * 440 * 2 ** ((key - 69) / 12) * harmonic * since
            waveform += 0.3 / harmonic**2 * envelope * np.sin(phase)
    return waveform[None].astype(np.float32)


@pytest.mark.parametrize('rate', [16_000, RATE])
def test_rendered_notes_are_found(rate):
    found = find_notes(np.concatenate([render(KEYS, rate)] * 2), rate)
    np.testing.assert_allclose(69 + 12 * np.log2(found.pitches / 440), KEYS, atol=1e-6)
    np.testing.assert_allclose(found.onsets, 0.1 + GAP * np.arange(10), atol=0.015)


@pytest.mark.parametrize('removed', [0, 1, 4, 10])
def test_notes_that_are_removed_lower_the_recall(removed):
    """Precision is 1 and recall r, the part that is left: F = 2r / (1 + r)."""
    estimate = render((None,) * removed + KEYS[removed:])
    recall = 1 - removed / len(KEYS)
    figure = note_agreement(render(KEYS), estimate, RATE)
    assert figure == pytest.approx(2 * recall / (1 + recall), abs=1e-4)


def test_other_keys_and_later_notes_do_not_agree():
    moved = (*(key + 1 for key in KEYS[:3]), *KEYS[3:])
    assert note_agreement(render(KEYS), render(moved), RATE) == pytest.approx(0.7)
    later = np.roll(render(KEYS), round(0.1 * RATE), axis=1)
    assert note_agreement(render(KEYS), later, RATE) == 0


def test_an_original_without_notes_has_no_figure():
    assert np.isnan(note_agreement(np.zeros((1, RATE)), render(KEYS)[:, :RATE], RATE))


def test_notes_match_within_50_ms_and_50_cents_and_once():
    def made(*given):
        onsets, pitches = np.array(given, float).T
        return Notes(onsets, pitches)

    one = made((1, 440))
    assert f_measure(one, made((1.049, 440))) == f_measure(one, made((0.951, 440))) == 1
    assert f_measure(one, made((1.051, 440))) == 0
    assert f_measure(one, made((1, 440 * 2 ** (0.49 / 12)))) == 1
    assert f_measure(one, made((1, 440 * 2 ** (0.51 / 12)))) == 0
    assert f_measure(one, made((1, 440), (1.02, 440))) == pytest.approx(2 / 3)
    assert f_measure(made((1, 440), (2, 220), (3, 110)), one) == pytest.approx(0.5)


def test_windows_do_not_show():
    """Probabilities do not depend on which window has a frame, far from the signal's ends."""
    waveform = render(KEYS, 22_050)[0]
    shifted = np.pad(waveform, (70 * 256, 0))
    one, other = notes._probabilities(waveform)[1], notes._probabilities(shifted)[1][70:]
    np.testing.assert_allclose(one, other[: len(one)], atol=0.25)
    assert len(one) == 1 + len(waveform) // 256


def test_the_package_itself_is_not_imported():
    find_notes(render(KEYS[:1]), RATE)
    import sys

    assert 'basic_pitch' not in sys.modules
    assert importlib.util.find_spec('basic_pitch') is not None

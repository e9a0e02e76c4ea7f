import logging
import warnings

import numpy as np
import pytest
import soundfile
import soxr

from m2l_jax.evaluation.perception.visqol import visqol
from tests.conftest import make_music

package = pytest.importorskip(
    'visqol', reason='visqol-python is missing: pip install -e .[evaluate]'
)
IDENTITY = 4.7321  # of the conformance test of equal files, castanets_identity


@pytest.fixture(scope='module')
def pair():
    """Music in stereo, and the same with noise and other channels, at 44.1 kHz."""
    original = make_music(2, channels=2, seed=1)
    noise = np.random.default_rng(0).standard_normal(original.shape)
    return original, (original + 5e-4 * noise * [[1], [3]]).astype(np.float32)


def test_equal_signals_have_the_published_score(pair):
    for rate in (44_100, 48_000):
        assert visqol(pair[0], pair[0], rate) == pytest.approx(IDENTITY, abs=1e-4)
    assert visqol(pair[0], pair[0] / 2, 48_000) == pytest.approx(IDENTITY, abs=1e-4)


@pytest.mark.parametrize('rate', [44_100, 48_000])
def test_scores_are_those_of_the_package_for_files(pair, rate, tmp_path):
    paths = [tmp_path / f'{name}.wav' for name in ('original', 'estimate')]
    for path, waveform in zip(paths, pair, strict=True):
        samples = waveform.T if rate == 48_000 else soxr.resample(waveform.T, rate, 48_000)
        soundfile.write(path, samples, 48_000, subtype='FLOAT')
    api = package.VisqolApi()
    api.create(mode='audio')
    expected = api.measure(*map(str, paths)).moslqo
    assert 1.5 < expected < 4.5
    assert visqol(*pair, rate) == pytest.approx(expected, abs=1e-4)


def test_scores_of_noise_fall(pair):
    original = pair[0]
    noise = np.random.default_rng(0).standard_normal(original.shape)
    scores = [visqol(original, original + level * noise, 48_000) for level in (1e-4, 1e-3, 1e-2)]
    assert IDENTITY > scores[0] > scores[1] > scores[2] >= 1


def test_what_it_cannot_score_is_nan_without_a_word(pair, capfd, caplog):
    original = pair[0]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        caplog.set_level(logging.INFO)
        assert np.isnan(visqol(original[:, :46_079], original[:, :46_079], 48_000))
        assert visqol(original[:, :46_080], original[:, :46_080], 48_000) > 4.5
        assert np.isnan(visqol(original, 0 * original, 48_000))
        assert np.isnan(visqol(0 * original, original, 48_000))
        assert np.isnan(visqol(np.stack([original[0], -original[0]]), original, 48_000))
    assert (caplog.messages, *capfd.readouterr()) == ([], '', '')

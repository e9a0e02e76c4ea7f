import math

import numpy as np
import pytest

from m2l_jax.probing.labels import KEYS
from m2l_jax.probing.scores import (
    ACCURACY,
    AVERAGE_PRECISION,
    ROC_AUC,
    accuracy,
    average_precision,
    mirex,
    roc_auc,
)


def draw(seed, clips=60, levels=None):
    random = np.random.default_rng(seed)
    scores = random.standard_normal(clips)
    if levels:
        scores = np.round(scores * levels) / levels
    return random.random(clips) < 0.3, scores


@pytest.mark.parametrize('levels', [None, 4, 1])
def test_areas_and_precisions_are_those_of_scikit_learn(levels):
    metrics = pytest.importorskip('sklearn.metrics')
    for seed in range(50):
        targets, scores = draw(seed, levels=levels)
        assert abs(roc_auc(targets, scores) - metrics.roc_auc_score(targets, scores)) < 1e-9
        expected = metrics.average_precision_score(targets, scores)
        assert abs(average_precision(targets, scores) - expected) < 1e-9


def test_figures_of_tags_are_the_macro_means_of_scikit_learn():
    metrics = pytest.importorskip('sklearn.metrics')
    random = np.random.default_rng(0)
    targets = random.random((80, 5)) < 0.4
    scores = np.round(random.standard_normal((2, 80, 5)), 1)
    for score, function in (
        (ROC_AUC, metrics.roc_auc_score),
        (AVERAGE_PRECISION, metrics.average_precision_score),
    ):
        figures, (low, high) = score.measure(targets, scores, 'abcde')
        expected = [function(targets, each, average='macro') for each in scores]
        np.testing.assert_allclose(figures, expected, atol=1e-9)
        assert low < np.mean(figures) < high


def test_closed_forms():
    assert roc_auc([0, 1, 0, 1], [1, 2, 3, 4]) == 0.75
    assert roc_auc([0, 1, 1], [0.5, 0.5, 0.5]) == 0.5
    assert average_precision([0, 1, 0, 1], [1, 2, 3, 4]) == (1 + 2 / 3) / 2
    assert average_precision([0, 1, 1, 0], [0.5] * 4) == 0.5
    assert math.isnan(roc_auc([1, 1], [1, 2]))
    assert math.isnan(average_precision([0, 0], [1, 2]))
    assert math.isnan(average_precision([1, 1], [1, 2]))
    assert accuracy(np.array([0, 1]), np.array([[2, 1], [3, 0]])).tolist() == [1, 0]


def test_tags_that_lack_positive_clips_do_not_count():
    targets = np.array([[1, 0], [0, 0], [1, 0]], bool)
    scores = np.array([[[3, 1], [2, 2], [1, 3]]], float)
    assert ROC_AUC.measure(targets, scores, 'ab')[0] == [0.5]


def test_tags_on_all_clips_do_not_count():
    targets = np.array([[1, 0], [1, 0], [1, 1]], bool)
    scores = np.array([[[3, 2], [2, 1], [1, 3]], [[3, 3], [2, 1], [1, 2]]], float)
    figures, (low, high) = AVERAGE_PRECISION.measure(targets, scores, 'ab')
    assert figures == [1, 0.5]
    # The first tag's 1 has no part in resamples: with it, none would be below 0.75 + 0.25 / 3.
    assert low < 0.75
    assert high == 1


def test_weights_of_keys_are_those_of_mir_eval():
    key = pytest.importorskip('mir_eval.key')
    for target, name in enumerate(KEYS):
        targets = np.full(len(KEYS), target)
        expected = [key.weighted_score(name, estimate) for estimate in KEYS]
        np.testing.assert_array_equal(mirex(targets, np.eye(len(KEYS)), KEYS), expected)


def test_weights_of_keys_do_not_depend_on_the_order_of_classes():
    classes = ('G major', 'A minor', 'C major')
    scores = np.eye(3)[[0, 1, 2, 0]]
    assert mirex(np.array([2, 2, 2, 1]), scores, classes).tolist() == [0.5, 0.3, 1, 0]


def test_an_interval_is_of_clips_and_the_figures_of_seeds():
    targets = np.arange(40) % 2
    right = np.eye(2)[targets]
    half = np.where((np.arange(40) < 20)[:, None], right, 1 - right)
    figures, (low, high) = ACCURACY.measure(targets, np.stack([right, half]), 'ab')
    assert figures == [1, 0.5]
    # 20 clips have 1 and 20 have 0.5: the mean's standard error is 0.25 / √40.
    error = 1.96 * 0.25 / math.sqrt(40)
    assert abs(low - (0.75 - error)) < 0.02
    assert abs(high - (0.75 + error)) < 0.02


def test_intervals_of_tags_agree_with_resampled_figures():
    metrics = pytest.importorskip('sklearn.metrics')
    random = np.random.default_rng(1)
    targets = random.random((50, 2)) < 0.5
    scores = targets + random.standard_normal((50, 2))
    _, (low, high) = ROC_AUC.measure(targets, scores[None], 'ab')
    drawn = []
    for _ in range(600):
        chosen = random.integers(50, size=50)
        drawn.append(metrics.roc_auc_score(targets[chosen], scores[chosen], average='macro'))
    np.testing.assert_allclose([low, high], np.percentile(drawn, [2.5, 97.5]), atol=0.03)

import numpy as np
import pytest

from m2l_jax.probing.probes import ProbeConfig, fit_probe, standardise
from m2l_jax.probing.scores import accuracy, roc_auc
from m2l_jax.probing.splits import Problem

SIZES = {'train': 120, 'validation': 60, 'test': 200}


def make_problem(targets):
    ends = np.cumsum(list(SIZES.values()))
    numbers = {
        split: np.arange(end - size, end)
        for (split, size), end in zip(SIZES.items(), ends, strict=True)
    }
    by_split = {split: targets[part] for split, part in numbers.items()}
    classes = tuple('abcdef'[: targets.max() + 1 if targets.ndim == 1 else targets.shape[1]])
    return Problem(classes, numbers, by_split, {}, ())


def draw(function, features=4, seed=0):
    inputs = np.random.default_rng(seed).standard_normal((sum(SIZES.values()), features))
    return inputs.astype(np.float32), function(inputs)


def right(kind, inputs, targets, seed=0):
    problem = make_problem(targets)
    features = standardise(inputs, problem)
    fitted = fit_probe(features, problem, ProbeConfig(kind), seed)
    return np.mean(accuracy(problem.targets['test'], fitted.scores))


@pytest.mark.parametrize('kind', ['linear', 'mlp'])
def test_linear_classes_are_learnt(kind):
    inputs, targets = draw(lambda x: np.argmax(x[:, :3], axis=1))
    assert right(kind, 1000 * inputs + 50, targets) > 0.9


def test_only_a_hidden_layer_learns_what_is_not_linear():
    inputs, targets = draw(lambda x: (x[:, 0] * x[:, 1] > 0).astype(int), features=2)
    assert right('linear', inputs, targets) < 0.7
    assert right('mlp', inputs, targets) > 0.9


def test_tags_are_learnt_each_by_itself():
    inputs, targets = draw(lambda x: x[:, :2] > 0.5)
    problem = make_problem(targets)
    fitted = fit_probe(standardise(inputs, problem), problem, ProbeConfig(), 0)
    tags = zip(problem.targets['test'].T, fitted.scores.T, strict=True)
    assert min(roc_auc(*tag) for tag in tags) > 0.95


def test_noise_is_not_fitted():
    """Labels apart from the features: the best epoch on the validation split is an early one."""
    inputs, _ = draw(lambda x: x, features=300)
    targets = np.random.default_rng(1).integers(2, size=len(inputs))
    problem = make_problem(targets)
    fitted = fit_probe(standardise(inputs, problem), problem, ProbeConfig(), 0)
    assert fitted.epochs < 20
    assert fitted.validation_loss <= np.log(2) + 1e-6
    assert 0.4 < np.mean(accuracy(problem.targets['test'], fitted.scores)) < 0.6


def test_the_same_seed_gives_the_same_predictions():
    inputs, targets = draw(lambda x: np.argmax(x[:, :3], axis=1))
    problem = make_problem(targets)
    features = standardise(inputs, problem)
    first, again, other = (
        fit_probe(features, problem, ProbeConfig('mlp'), seed).scores for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_the_learning_rate_of_least_validation_loss_is_kept():
    inputs, targets = draw(lambda x: np.argmax(x[:, :3], axis=1))
    problem = make_problem(targets)
    features = standardise(inputs, problem)
    both = fit_probe(features, problem, ProbeConfig(learning_rates=(1e-9, 1e-2)), 0)
    only = fit_probe(features, problem, ProbeConfig(learning_rates=(1e-2,)), 0)
    assert both.learning_rate == 1e-2
    np.testing.assert_array_equal(both.scores, only.scores)


def test_features_are_scaled_by_training_alone():
    inputs, targets = draw(lambda x: (x[:, 0] > 0).astype(int))
    inputs = np.concatenate([5 * inputs + 3, np.full((len(inputs), 1), 7.1, np.float32)], axis=1)
    problem = make_problem(targets)
    features = standardise(inputs, problem)
    training = inputs[problem.numbers['train'], :4]
    np.testing.assert_allclose(features['train'][:, :4].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(features['train'][:, :4].std(axis=0), 1, atol=1e-5)
    expected = (inputs[problem.numbers['test'], :4] - training.mean(axis=0)) / training.std(axis=0)
    np.testing.assert_allclose(features['test'][:, :4], expected, atol=1e-4)
    assert not np.any(features['test'][:, 4])

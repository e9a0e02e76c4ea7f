import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from m2l_jax.interface.errors import InputError
from m2l_jax.interface.settings import build
from m2l_jax.training.config import TrainingConfig
from m2l_jax.training.state import (
    OPTIMIZERS,
    OptimizerConfig,
    ema_rate,
    learning_rate_schedule,
    make_optimizer,
    ravel,
    start_from,
    to_trees,
    to_vectors,
    unravel,
)
from tests.small_training import make_config

CONFIG = OptimizerConfig(
    learning_rate=1e-4,
    final_learning_rate=1e-6,
    warmup_steps=10_000,
    b1=0.9,
    b2=0.999,
    ema_decay=0.9999,
    clip_norm=0.0,
)


def test_learning_rate_warms_up_linearly_and_decays_as_a_cosine():
    rate = learning_rate_schedule(CONFIG, 800_000)
    middle = (10_000 + 800_000) / 2
    steps = [0, 5_000, 10_000, middle, 800_000]
    expected = [0, 5e-5, 1e-4, (1e-4 + 1e-6) / 2, 1e-6]
    np.testing.assert_allclose([rate(step) for step in steps], expected, rtol=1e-5)


def test_learning_rate_is_that_of_optax():
    rate = learning_rate_schedule(CONFIG, 800_000)
    expected = optax.warmup_cosine_decay_schedule(0.0, 1e-4, 10_000, 800_000, 1e-6)
    steps = np.arange(0, 810_000, 999)
    np.testing.assert_allclose(jax.vmap(rate)(steps), jax.vmap(expected)(steps), atol=1e-10)


def test_a_warmup_longer_than_the_training_is_refused():
    config = make_config('')
    with config.unlocked():
        config.data.path, config.optimizer.warmup_steps = '.', 6
    with pytest.raises(InputError, match=r'warmup_steps=6 must be below config\.train\.steps=6'):
        build(TrainingConfig, config)


def test_average_follows_the_reference_decay():
    updates = np.array([0, 1, 90, 1_000_000])
    decay = np.minimum(0.9999, (1 + updates) / (10 + updates))
    np.testing.assert_allclose(ema_rate(jnp.asarray(updates), 0.9999), 1 - decay, rtol=1e-6)


def test_optimiser_takes_radams_steps():
    """Liu et al. 2020, algorithm 2, in float64, a parameter and a constant rate at a time."""
    config = OptimizerConfig(0.1, 0.1, 0, 0.9, 0.999, 0.99, 0.0)
    optimizer = make_optimizer(config, 100)
    params, state = jnp.array(1.0), optimizer.init(jnp.array(1.0))
    expected, first, second = 1.0, 0.0, 0.0
    longest = 2 / (1 - 0.999) - 1
    for t in range(1, 12):
        gradient = np.sin(t)
        updates, state = optimizer.update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        length = longest - 2 * t * 0.999**t / (1 - 0.999**t)
        step = first / (1 - 0.9**t)
        if length > 5:
            step /= np.sqrt(second / (1 - 0.999**t)) + 1e-8
            step *= np.sqrt(
                (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            )
        expected -= 0.1 * step
        # In float32, 1 - 0.999^t keeps five digits.
        np.testing.assert_allclose(params, expected, rtol=1e-4)


def test_clipping_scales_a_large_gradient_down_and_changes_no_structure():
    plain, clipped = (
        make_optimizer(OptimizerConfig(0.1, 0.1, 0, 0.9, 0.999, 0.99, norm), 100)
        for norm in (0.0, 2.0)
    )
    params = jnp.zeros(2)
    assert jax.tree.structure(plain.init(params)) == jax.tree.structure(clipped.init(params))
    large, scaled = jnp.array([30.0, 40.0]), jnp.array([1.2, 1.6])
    moved, _ = clipped.update(large, clipped.init(params), params)
    expected, _ = plain.update(scaled, plain.init(params), params)
    np.testing.assert_allclose(moved, expected, rtol=1e-5)


TREE = {'a': np.arange(6.0, dtype=np.float32).reshape(2, 3), 'b': {'c': np.float32([[7.0]])}}


def test_a_vector_holds_the_leaves_in_their_order():
    vector = ravel(TREE, 9)
    np.testing.assert_array_equal(vector, [0, 1, 2, 3, 4, 5, 7, 0, 0])
    for ours, leaf in zip(*map(jax.tree.leaves, (unravel(vector, TREE), TREE)), strict=True):
        np.testing.assert_array_equal(ours, leaf)
    assert ravel(TREE).shape == (7,)


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_a_vectors_updates_are_those_of_the_leaves(name):
    """So that checkpoints hold trees, with moments as an optimiser of trees has them."""
    config = OPTIMIZERS[name](0.1, 0.01, 2, 0.9, 0.99, 0.99, 3.0)
    assert config.name == name
    optimizer, of_vectors = (make_optimizer(config, 20, shapes) for shapes in (None, TREE))
    params, state = TREE, start_from(TREE, of_vectors, 10)
    opt_state = optimizer.init(params)
    for step in range(8):
        gradient = jax.tree.map(lambda leaf: np.cos(leaf + step), TREE)  # noqa: B023
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        updates, vectors = of_vectors.update(ravel(gradient, 10), state.opt_state, state.params)
        moved = optax.apply_updates(state.params, updates)
        state = state.replace(params=moved, opt_state=vectors)
    np.testing.assert_array_equal(state.params[7:], 0)
    trees = to_trees(state, TREE)
    assert jax.tree.structure(trees.opt_state) == jax.tree.structure(opt_state)
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-5),
        (trees.params, trees.opt_state),
        (params, opt_state),
    )
    again = to_vectors(trees, state)
    jax.tree.map(np.testing.assert_array_equal, again, state)


def test_weight_decay_is_adamws():
    config = OPTIMIZERS['adamw'](0.1, 0.1, 0, 0.9, 0.99, 0.99, 0.0, weight_decay=0.5)
    optimizer = make_optimizer(config, 100)
    params = jnp.array([2.0, -4.0])
    updates, _ = optimizer.update(jnp.array([3.0, 0.0]), optimizer.init(params), params)
    np.testing.assert_allclose(updates, [-0.1 * (1 + 0.5 * 2), 0.1 * 0.5 * 4], rtol=1e-5)

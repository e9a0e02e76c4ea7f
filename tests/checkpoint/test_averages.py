import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import save_file

from m2l_jax.checkpoint import averages
from m2l_jax.checkpoint.averages import (
    drop_snapshots,
    exponent,
    fit_profile,
    reconstruct_average,
    write_snapshot,
)
from m2l_jax.interface.errors import InputError
from m2l_jax.training.state import OptimizerConfig, make_optimizer

STEPS, EVERY = 640, 16
KEPT, ASKED = (0.05, 0.1), (0.04, 0.07, 0.15)


def profile(steps, power):
    """Weights of steps 1 to `steps` in the average of γ."""
    edges = (np.arange(steps + 1) / steps) ** (power + 1)
    return np.diff(edges)


@pytest.mark.parametrize('sigma_rel', [0.01, 0.05, 0.1, 0.25])
def test_a_profile_has_the_deviation_that_names_it(sigma_rel):
    weights = profile(100_000, exponent(sigma_rel))
    times = (np.arange(100_000) + 0.5) / 100_000
    mean = weights @ times
    assert np.sqrt(weights @ (times - mean) ** 2) == pytest.approx(sigma_rel, rel=1e-3)


def test_a_known_exponent():
    """Karras et al. 2024, section 3.1."""
    assert exponent(0.05) == pytest.approx(16.97, abs=0.005)
    assert exponent(0.1) == pytest.approx(6.94, abs=0.005)


@pytest.mark.parametrize('sigma_rel', [0.0, -0.1, 0.2887, 1.0])
def test_profiles_that_are_none_are_refused(sigma_rel):
    with pytest.raises(InputError, match=r'ema_profiles: .* must be above 0 and below 0\.2887'):
        OptimizerConfig(0.1, 0.1, 0, 0.9, 0.9, 0.9, 0.0, ema_profiles=(sigma_rel,))


@pytest.fixture(scope='module')
def path():
    """A parameter's vector after each step of RAdam down a noisy valley, and its averages."""
    config = OptimizerConfig(0.05, 0.0005, 10, 0.9, 0.99, 0.99, 0.0, ema_profiles=KEPT + ASKED)
    optimizer = make_optimizer(config, STEPS)
    params = jnp.asarray(np.random.default_rng(0).standard_normal(50, np.float32))

    def step(carry, noise):
        params, state = carry
        updates, state = optimizer.update(params + noise, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, state[-1].averages)

    noise = np.random.default_rng(1).standard_normal((STEPS, 50)).astype(np.float32)
    _, (steps, kept) = jax.lax.scan(step, (params, optimizer.init(params)), noise)
    return np.asarray(steps), dict(zip(KEPT + ASKED, map(np.asarray, kept), strict=True))


def test_averages_are_the_weighted_sums_of_all_steps(path):
    steps, kept = path
    for sigma_rel, average in kept.items():
        for last in (1, 2, 99, STEPS):
            expected = profile(last, exponent(sigma_rel)) @ steps[:last]
            np.testing.assert_allclose(average[last - 1], expected, atol=1e-5)


def test_averages_change_no_update():
    plain, averaging = (
        make_optimizer(OptimizerConfig(0.1, 0.1, 0, 0.9, 0.9, 0.9, 0.0, ema_profiles=kept), 10)
        for kept in ((), KEPT)
    )
    params = jnp.arange(3.0)
    ours, (*state, _) = averaging.update(params, averaging.init(params), params)
    expected = plain.update(params, plain.init(params), params)
    jax.tree.map(np.testing.assert_array_equal, (ours, tuple(state)), expected)


@pytest.fixture
def run(path, tmp_path):
    """A run that kept two averages of that path."""
    _, kept = path
    for step in range(EVERY, STEPS + 1, EVERY):
        trees = {name: {'a': {'b': kept[name][step - 1]}} for name in KEPT}
        write_snapshot(tmp_path, step, step, trees)
    return tmp_path


@pytest.mark.parametrize('sigma_rel', KEPT + ASKED)
def test_another_average_is_as_if_it_had_been_kept(run, path, sigma_rel):
    steps, kept = path
    ours = reconstruct_average(run, STEPS, sigma_rel)['a']['b']
    spread = np.linalg.norm(kept[sigma_rel][-1] - steps[-1])
    assert ours.dtype == np.float32
    bound = 1e-5 if sigma_rel in KEPT else 0.02
    assert np.linalg.norm(ours - kept[sigma_rel][-1]) < bound * spread


def test_what_is_missing_is_measured():
    times = np.repeat(np.arange(EVERY, STEPS + 1, EVERY), 2).astype(float)
    powers = np.tile([exponent(sigma_rel) for sigma_rel in KEPT], len(times) // 2)
    for sigma_rel in ASKED:
        weights, residual = fit_profile(times, powers, STEPS, exponent(sigma_rel))
        total = sum(
            weight * np.pad(profile(int(time), power), (0, STEPS - int(time)))
            for weight, time, power in zip(weights, times, powers, strict=True)
        )
        wanted = profile(STEPS, exponent(sigma_rel))
        missing = np.linalg.norm(total - wanted) / np.linalg.norm(wanted)
        assert missing == pytest.approx(residual, rel=0.2, abs=1e-3)
        assert missing < 0.02
        assert np.sum(weights) == pytest.approx(1, abs=1e-12)


def test_averages_out_of_reach_are_refused(run, tmp_path):
    with pytest.raises(InputError, match=r'80 averages in .*nearer to theirs, 0\.05 and 0\.1, or'):
        reconstruct_average(run, STEPS, 0.001)
    with pytest.raises(InputError, match=r'sigma_rel=0\.3 must be .* below 0\.2887, .*: 0\.1 aver'):
        reconstruct_average(run, STEPS, 0.3)
    drop_snapshots(run, after=0)
    with pytest.raises(InputError, match=r'0\.05 needs .* has none: train from the first'):
        reconstruct_average(run, STEPS, 0.05)


def test_those_after_the_step_that_a_run_goes_on_from_are_removed(run):
    (run / 'averages' / 'notes.txt').touch()
    drop_snapshots(run, after=3 * EVERY)
    names = {path.name for path in (run / 'averages').iterdir()}
    assert names == {'16.safetensors', '32.safetensors', '48.safetensors', 'notes.txt'}


def test_a_damaged_snapshot_is_named(run):
    (run / 'averages' / '32.safetensors').write_bytes(b'none')
    with pytest.raises(InputError, match=r'32\.safetensors is damaged .*: remove it, or copy'):
        reconstruct_average(run, STEPS, 0.05)


def test_another_file_is_no_snapshot(run):
    save_file({'a': np.zeros(2, np.float32)}, run / 'averages' / '32.safetensors')
    with pytest.raises(InputError, match=r'32\.safetensors is no snapshot of averages: move it'):
        reconstruct_average(run, STEPS, 0.05)


def test_one_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / averages._FOLDER).touch()
    with pytest.raises(InputError, match=r'4\.safetensors cannot be written'):
        write_snapshot(tmp_path, 4, 4, {0.1: {'a': np.zeros(2)}})

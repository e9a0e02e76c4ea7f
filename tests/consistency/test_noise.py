import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m2l_jax.consistency.noise import (
    DenoisingSchedule,
    DiscreteSchedule,
    DoublingSchedule,
    IndexDensity,
    LogNormalDensity,
    MixtureDensity,
    NoiseLevels,
    StepSchedule,
    UniformDensity,
    teacher_index,
)
from m2l_jax.interface.errors import InputError

LEVELS = NoiseLevels()
DENSITY = IndexDensity(log_sigma_mean=-1.1, log_sigma_std=2.0)


def test_levels_run_from_sigma_min_to_sigma_max():
    np.testing.assert_allclose(LEVELS.sigma(jnp.array([0.0, 1.0])), [0.002, 80], rtol=1e-5)
    # ((0.002^(1/7) + 80^(1/7)) / 2)^7, by hand
    np.testing.assert_allclose(LEVELS.sigma(jnp.array(0.5)), 2.515219, rtol=1e-5)


def test_indices_follow_the_density():
    """Monte-Carlo against the density integrated on a grid: the mean of log σ and ten quantiles."""
    indices = DENSITY.sample(jax.random.key(0), LEVELS, (200_000,))
    assert 0 <= indices.min() < indices.max() <= 1
    grid = np.linspace(0, 1, 100_001)
    density = np.exp(-0.5 * ((np.log(LEVELS.sigma(grid)) + 1.1) / 2) ** 2)
    density /= density.sum()
    expected = np.sum(density * np.log(LEVELS.sigma(grid)))
    assert expected == pytest.approx(-0.554, abs=1e-3)
    np.testing.assert_allclose(np.mean(np.log(LEVELS.sigma(indices))), expected, atol=0.02)
    levels = np.linspace(0.05, 0.95, 10)
    expected = np.interp(levels, np.cumsum(density), grid)
    np.testing.assert_allclose(np.quantile(indices, levels), expected, atol=3e-3)


def test_step_shrinks_exponentially():
    schedule = StepSchedule(start_exponent=1.0, end_exponent=3.0)
    delta = schedule.delta(jnp.array([0.0, 0.25, 0.5, 1.0]))
    np.testing.assert_allclose(delta, [0.1, 0.0316227766, 0.01, 0.001], rtol=1e-5)


def test_teacher_stays_in_range():
    np.testing.assert_allclose(teacher_index(jnp.array([0.05, 0.1, 0.5]), 0.1), [0, 0, 0.4])


def test_levels_in_the_wrong_order_are_told():
    with pytest.raises(InputError, match=r'sigma_min=2\.0 must be between 0 and sigma_max=1\.0'):
        NoiseLevels(sigma_min=2.0, sigma_max=1.0)


def test_lognormal_levels_are_a_truncated_normal_in_log_sigma():
    indices = LogNormalDensity(-1.1, 2.0).sample(jax.random.key(0), LEVELS, (200_000,))
    assert 0 <= indices.min() < indices.max() <= 1
    log_sigma = np.log(LEVELS.sigma(indices))
    grid = np.linspace(np.log(0.002), np.log(80), 100_001)
    cumulative = np.cumsum(np.exp(-0.5 * ((grid + 1.1) / 2) ** 2))
    levels = np.linspace(0.05, 0.95, 10)
    expected = np.interp(levels, cumulative / cumulative[-1], grid)
    np.testing.assert_allclose(np.quantile(log_sigma, levels), expected, atol=0.03)


def test_index_is_the_inverse_of_sigma():
    index = np.linspace(0, 1, 5)
    np.testing.assert_allclose(LEVELS.index(LEVELS.sigma(index)), index, atol=1e-6)


def test_steps_double_over_training():
    delta = DoublingSchedule(10, 80).delta(jnp.array([0.0, 0.24, 0.26, 0.6, 0.76, 1.0]))
    np.testing.assert_allclose(1 / delta, [10, 10, 20, 40, 80, 80], rtol=1e-6)
    with pytest.raises(InputError, match='start_steps=3 must be from 1 to end_steps=2'):
        DoublingSchedule(3, 2)


def test_uniform_density_gives_all_indices_alike():
    indices = UniformDensity().sample(jax.random.key(0), LEVELS, (100_000,))
    assert 0 <= indices.min() < indices.max() <= 1
    levels = np.linspace(0.05, 0.95, 10)
    np.testing.assert_allclose(np.quantile(indices, levels), levels, atol=0.01)


def test_discrete_indices_are_multiples_of_delta_and_their_teachers_the_next_lower():
    schedule = DiscreteSchedule(10, 80)
    drawn = jnp.linspace(0, 1, 1001)
    for progress, steps in ((0.0, 10), (0.3, 20), (1.0, 80)):
        delta = schedule.delta(progress)
        index = schedule.place(drawn, delta)
        numbers = np.asarray(index) * steps
        np.testing.assert_allclose(numbers, np.round(numbers), atol=1e-4)
        assert set(np.round(numbers).astype(int)) == set(range(1, steps + 1))
        assert np.all((index >= drawn - 1e-6) & (index - drawn < 1.01 / steps))
        teachers = np.asarray(teacher_index(index, delta)) * steps
        np.testing.assert_allclose(teachers, np.round(numbers) - 1, atol=1e-4)
    for other in (StepSchedule(1.0, 3.0), DoublingSchedule(10, 80)):
        np.testing.assert_array_equal(other.place(drawn, 0.1), drawn)


@pytest.mark.parametrize(('share', 'sigma'), [(0.2, 10.0), (0.5, 40.0)])
def test_a_mixture_has_a_share_of_high_levels_on_top(share, sigma):
    """Draws above four levels, against (1 - s)·P_paper + s·P_uniform in closed form."""
    density = MixtureDensity(-1.1, 2.0, high_share=share, high_sigma=sigma)
    indices = np.asarray(density.sample(jax.random.key(0), LEVELS, (200_000,)))
    assert 0 <= indices.min() < indices.max() <= 1
    grid = np.linspace(0, 1, 100_001)
    paper = np.exp(-0.5 * ((np.log(LEVELS.sigma(grid)) + 1.1) / 2) ** 2)
    lowest = LEVELS.index(sigma)
    for level in (0.1, 5.0, sigma, 60.0):
        index = LEVELS.index(level)
        of_paper = paper[grid > index].sum() / paper.sum()
        if level == 10.0:
            assert of_paper == pytest.approx(0.0721, abs=1e-4)
        of_high = min(1.0, (1 - index) / (1 - lowest))
        expected = (1 - share) * of_paper + share * of_high
        assert np.mean(indices > index) == pytest.approx(expected, abs=4e-3)


def test_a_mixture_without_a_high_part_is_the_papers_density():
    key = jax.random.key(0)
    mixture = MixtureDensity(-1.1, 2.0, high_share=1e-9)
    np.testing.assert_allclose(
        mixture.sample(key, LEVELS, (1000,)), DENSITY.sample(key, LEVELS, (1000,)), atol=1e-6
    )


def test_a_mixture_that_cannot_be_is_told():
    for share in (0.0, 1.0):
        with pytest.raises(InputError, match=f'density.high_share={share} must be above 0 and be'):
            MixtureDensity(-1.1, 2.0, high_share=share)
    with pytest.raises(InputError, match=r'log_sigma_std=0\.0 must be above 0'):
        MixtureDensity(-1.1, 0.0)
    for sigma in (0.001, 80.0):
        density = MixtureDensity(-1.1, 2.0, high_sigma=sigma)
        with pytest.raises(
            InputError, match=rf'high_sigma={sigma} must be .*sigma_min=0\.002 to be'
        ):
            density.check(LEVELS)


def test_a_denoiser_becomes_consistent():
    """Δ = 1 in the first quarter; then the exponents 1 to 3 over the rest."""
    schedule = DenoisingSchedule(1.0, 3.0, denoising_part=0.25)
    progress = jnp.array([0.0, 0.2499, 0.25, 0.625, 1.0])
    np.testing.assert_allclose(schedule.delta(progress), [1, 1, 0.1, 0.01, 0.001], rtol=1e-5)
    np.testing.assert_array_equal(schedule.denoises(progress), [True, True, False, False, False])
    assert float(schedule.delta(1.0)) == pytest.approx(1e-3)
    assert StepSchedule(0.0, 3.0).denoises(progress) is None
    with pytest.raises(InputError, match=r'schedule.denoising_part=1\.0 must be above 0 and below'):
        DenoisingSchedule(1.0, 3.0, denoising_part=1.0)

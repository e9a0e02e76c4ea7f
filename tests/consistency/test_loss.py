import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m2l_jax.consistency.loss import add_noise, consistency_loss, level_weight, pseudo_huber

SHAPE = (3, 16, 8, 2)


def random(seed):
    return jax.random.normal(jax.random.key(seed), SHAPE)


def test_pseudo_huber_equals_its_formula():
    difference = random(0)
    c = 0.00054 * np.sqrt(256)
    squared = np.sum(np.asarray(difference, np.float64) ** 2, axis=(1, 2, 3))
    expected = np.sqrt(squared + c**2) - c
    np.testing.assert_allclose(pseudo_huber(difference, 0.00054), expected, rtol=1e-6)


def test_pseudo_huber_is_0_with_gradient_0_at_0_and_exact_close_to_it():
    value, gradient = jax.value_and_grad(lambda d: pseudo_huber(d, 0.00054).sum())(jnp.zeros(SHAPE))
    assert value == 0
    assert not np.any(gradient)
    # Far below c the distance is ‖d‖²/(2c); √(‖d‖² + c²) - c in float32 would be 0.
    tiny = jnp.full(SHAPE, 1e-7)
    expected = 256 * 1e-14 / (2 * 0.00054 * 16)
    np.testing.assert_allclose(pseudo_huber(tiny, 0.00054), expected, rtol=1e-3)


def test_constant_of_a_full_crop_is_that_of_the_paper():
    assert 0.00054 * np.sqrt(2 * 1024 * 64) == pytest.approx(0.1955, abs=1e-4)


def test_weight_is_the_inverse_gap_and_0_without_one():
    sigma, teacher = jnp.array([2.0, 0.5, 0.002]), jnp.array([1.5, 0.25, 0.002])
    np.testing.assert_allclose(level_weight(sigma, teacher), [2, 4, 0])
    np.testing.assert_allclose(level_weight(sigma, teacher, least=3.0), [3, 4, 0])
    gradient = jax.grad(lambda s: level_weight(s, teacher).sum())(sigma)
    np.testing.assert_allclose(gradient, [-4, -16, 0])


def test_noise_has_the_standard_deviation_asked_for():
    noisy = add_noise(random(0), random(1), jnp.array([0.0, 1.0, 80.0]))
    np.testing.assert_allclose(noisy[0], random(0)[0])
    np.testing.assert_allclose(noisy[2], random(0)[2] + 80 * random(1)[2], rtol=1e-6)


def test_loss_of_a_linear_model_equals_the_closed_form():
    """f(x, σ) = a·x: the outputs differ by a·(σ - σ')·noise."""
    clean, noise = random(0), random(1)
    sigma, teacher = jnp.array([2.0, 1.0, 0.1]), jnp.array([1.0, 0.9, 0.05])
    model = lambda noisy, level: 0.3 * noisy  # noqa: E731
    loss = consistency_loss(model, model, clean, noise, sigma, teacher, 0.00054)
    gap = np.asarray(sigma - teacher, np.float64)
    norm = 0.3 * gap * np.sqrt(np.sum(np.asarray(noise) ** 2, axis=(1, 2, 3)))
    c = 0.00054 * 16
    np.testing.assert_allclose(loss, (np.sqrt(norm**2 + c**2) - c) / gap, rtol=1e-4)


def test_teacher_is_a_constant_to_the_gradient():
    clean, noise = random(0), random(1)
    sigma, teacher_sigma = jnp.full(3, 0.5), jnp.full(3, 0.4)

    def loss(scale, teacher_scale):
        student = lambda noisy, level: scale * noisy  # noqa: E731
        teacher = lambda noisy, level: teacher_scale * noisy  # noqa: E731
        args = (clean, noise, sigma, teacher_sigma, 0.00054)
        return consistency_loss(student, teacher, *args).sum()

    shared = jax.grad(lambda scale: loss(scale, scale))(0.7)
    apart = jax.grad(loss, argnums=(0, 1))(0.7, 0.7)
    np.testing.assert_allclose(shared, apart[0], rtol=1e-6)
    assert apart[1] == 0


def test_nothing_is_nan_where_the_levels_coincide():
    level = jnp.full(3, 0.002)

    def loss(scale):
        model = lambda noisy, sigma: scale * noisy  # noqa: E731
        return consistency_loss(model, model, random(0), random(1), level, level, 0.00054).sum()

    assert jax.value_and_grad(loss)(1.0) == (0, 0)

"""The consistency loss, for any denoising function."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Denoise = Callable[[jax.Array, jax.Array], jax.Array]  # (noisy, sigma) -> clean


def add_noise(clean: jax.Array, noise: jax.Array, sigma: jax.Array) -> jax.Array:
    """x_σ = x + σ·noise, with one σ a batch row: `[B, ...]`, `[B, ...]`, `[B]`."""
    return clean + _per_row(sigma, clean) * noise


def pseudo_huber(difference: jax.Array, scale: float) -> jax.Array:
    """√(‖d‖² + c²) - c with c = scale·√n over the n elements of each row: `[B, ...]` to `[B]`.

    Song & Dhariwal 2023, eq. 7. Written as ‖d‖²/(√(‖d‖² + c²) + c), which loses no digits where
    ‖d‖ is far below c and has the gradient 0 at d = 0.
    """
    difference = difference.astype(jnp.float32)
    squared = jnp.sum(difference**2, axis=tuple(range(1, difference.ndim)))
    c = scale * (difference.size / difference.shape[0]) ** 0.5
    return squared / (jnp.sqrt(squared + c**2) + c)


def level_weight(sigma: jax.Array, teacher_sigma: jax.Array, least: float = 0.0) -> jax.Array:
    """1/(σ - σ') but no less than `least`; 0 where the levels, and so the outputs, are the same."""
    gap = sigma - teacher_sigma
    apart = gap > 0
    return jnp.where(apart, jnp.maximum(1 / jnp.where(apart, gap, 1.0), least), 0.0)


def consistency_loss(
    student: Denoise,
    teacher: Denoise,
    clean: jax.Array,
    noise: jax.Array,
    sigma: jax.Array,
    teacher_sigma: jax.Array,
    huber_scale: float,
    least_weight: float = 0.0,
) -> jax.Array:
    """Weighted distance of the student's output at σ from the teacher's at σ' < σ, a row each.

    Both see the same clean input and the same noise. The teacher's output is a constant to the
    gradient; it costs no backward pass if its parameters and conditioning are constants too.

    Args:
      student, teacher: `(noisy [B, ...], sigma [B]) -> clean [B, ...]`.
      clean, noise: `[B, ...]`, float32.
      sigma, teacher_sigma: `[B]`, float32.
      huber_scale: c of the pseudo-Huber distance divided by √n; 0.00054 in both papers.
      least_weight: lower bound of 1/(σ - σ'); 0 in the papers.

    Returns:
      `[B]`, float32: (√(‖f(x_σ) - sg f(x_σ')‖² + c²) - c)/(σ - σ').
    """
    target = jax.lax.stop_gradient(teacher(add_noise(clean, noise, teacher_sigma), teacher_sigma))
    output = student(add_noise(clean, noise, sigma), sigma)
    weight = level_weight(sigma, teacher_sigma, least_weight)
    return weight * pseudo_huber(output - target, huber_scale)


def identity_while(condition: jax.Array | None, denoise: Denoise) -> Denoise:
    """A denoiser that is not computed while a condition holds, and returns its noisy input.

    Args:
      condition: `[]`, true only where σ = σ_min, at which every `denoise` is the identity; None if
        it is never true.
      denoise: see `consistency_loss`.
    """
    if condition is None:
        return denoise
    return lambda noisy, sigma: jax.lax.cond(
        condition, lambda noisy, sigma: noisy, denoise, noisy, sigma
    )


def _per_row(values: jax.Array, like: jax.Array) -> jax.Array:
    return values.reshape(-1, *[1] * (like.ndim - 1))

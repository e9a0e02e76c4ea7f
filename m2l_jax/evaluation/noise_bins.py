"""What a model makes of each noise level, on the same crops with the same noise every time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from m2l_jax.consistency.keys import random_key
from m2l_jax.consistency.loss import add_noise, consistency_loss
from m2l_jax.consistency.noise import teacher_index
from m2l_jax.model.autoencoder import Music2Latent, Params

BINS = 8

_SEED = 0  # of the noise

Measure = Callable[[Params, np.ndarray], tuple[jax.Array, jax.Array]]


def bin_indices() -> np.ndarray:
    """The middles of `BINS` equal parts of the noise index, `[BINS]`, float32."""
    return (np.arange(BINS, dtype=np.float32) + 0.5) / BINS


def make_measure(model: Music2Latent, huber_scale: float, delta: float) -> Measure:
    """Compiles (params, crops `[B, F, T, 2]`) -> (losses `[BINS]`, errors `[BINS]`), float32.

    Each bin is measured at the level in its middle, with a noise of its own for each crop. Its loss
    is the consistency loss with the same parameters as student and teacher: how far apart f(x_σ)
    and f(x_σ') are, which a model that ignores its input can make 0 as well as a perfect one. Its
    error, the root mean square of f(x_σ) - x over crops and elements, says how near to the clean
    spectrogram x the model comes; a model that gives x_σ back has the error σ. In bfloat16 and with
    a small Δ, the losses at the highest levels are mostly rounding.

    Args:
      model: computes in its config's dtype.
      huber_scale: c of the loss over √n.
      delta: Δ between the student's and the teacher's noise index. Training shrinks it; a fixed one
        makes evaluations comparable.
    """
    levels = model.config.noise

    @jax.jit
    def measure(params: Params, crops: jax.Array) -> tuple[jax.Array, jax.Array]:
        def apply(*inputs, method):
            return model.apply({'params': params}, *inputs, method=method)

        pyramid = apply(apply(crops, method='encode'), method='pyramid')
        keys = jax.random.split(random_key(_SEED), len(crops))
        normal, shape = jax.random.normal, crops.shape[1:]

        def denoise(noisy, sigma):
            return apply(noisy, sigma, pyramid, method='denoise')

        def measure_bin(place):
            number, index = place
            noise = jax.vmap(lambda key: normal(jax.random.fold_in(key, number), shape))(keys)
            sigma, teacher_sigma = (
                jnp.full(len(crops), levels.sigma(i)) for i in (index, teacher_index(index, delta))
            )
            output = denoise(add_noise(crops, noise, sigma), sigma)
            losses = consistency_loss(
                lambda *_: output,  # what the student gives, of which the error is taken as well
                denoise,
                crops,
                noise,
                sigma,
                teacher_sigma,
                huber_scale,
            )
            return jnp.mean(losses), jnp.sqrt(jnp.mean((output - crops) ** 2))

        return jax.lax.map(measure_bin, (jnp.arange(BINS), jnp.asarray(bin_indices())))

    return measure

"""Figures of a model at each noise level, on the same crops with the same noise every time."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from m2l_jax.audio.planes import magnitudes
from m2l_jax.consistency.keys import random_key
from m2l_jax.consistency.loss import add_noise, consistency_loss
from m2l_jax.consistency.noise import NoiseLevels, teacher_index
from m2l_jax.model.autoencoder import Music2Latent, Params
from m2l_jax.model.bottleneck import token_histogram
from m2l_jax.model.config import ModelConfig

BINS = 8

_SEED = 0  # of the noise
_NOISY = 5.0  # σ from which on hardly anything but the latents identifies the clip
_SATURATED = 0.99
_OWN, _OTHER, _MEAN = range(3)  # latents that a crop is denoised with


class BinFigures(NamedTuple):
    """Figures of each noise level, `[BINS]`, and of the latents, `[]`; all float32.

    Attributes:
      loss: consistency loss with the same parameters as student and teacher: the distance between
        f(x_σ) and f(x_σ'). It is 0 for a perfect model, and for one that ignores its input.
      error: root mean square of f(x_σ) - x over crops and elements, x being the clean spectrogram;
        a model that returns x_σ has the error σ.
      error_other: the same where each crop is denoised with another crop's latents; nan where all
        crops are equal, as those of a single clip no longer than a crop.
      error_mean: the same with the mean of all latents.
      magnitude_error, magnitude_error_other: as `error` and `error_other`, of the magnitudes alone:
        they fall while phases are still left to chance.
      latent_std: standard deviation of the latents.
      latents_saturated: the part of the latents at the ends of tanh.
      token_histogram: of a discrete model, see `bottleneck.token_histogram`; else None.
    """

    loss: jax.Array
    error: jax.Array
    error_other: jax.Array
    error_mean: jax.Array
    magnitude_error: jax.Array
    magnitude_error_other: jax.Array
    latent_std: jax.Array
    latents_saturated: jax.Array
    token_histogram: jax.Array | None = None


Measure = Callable[..., BinFigures]


def latent_moments(latents: jax.Array, config: ModelConfig) -> dict[str, jax.Array]:
    """Means for `latent_spread`, of latents `[B, L, C]`; means over parts may be averaged."""
    moments = {
        'mean': jnp.mean(latents),
        'mean_square': jnp.mean(latents**2),
        'saturated': jnp.mean((jnp.abs(latents) > _SATURATED).astype(jnp.float32)),
    }
    if config.is_discrete:
        moments['tokens'] = token_histogram(latents, config.levels)
    return moments


def latent_spread(moments: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Standard deviation of the latents, and the part of them that is stuck at -1 or 1.

    Of a discrete model, the tokens' histogram too.
    """
    variance = moments['mean_square'] - moments['mean'] ** 2
    spread = {
        'latent_std': jnp.sqrt(jnp.maximum(variance, 0.0)),
        'latents_saturated': moments['saturated'],
    }
    if 'tokens' in moments:
        spread['token_histogram'] = moments['tokens']
    return spread


def token_figures(histogram: np.ndarray) -> dict[str, float]:
    """Use of a discrete model's tokens, from the share of each in each channel, `[C, levels]`.

    - `code_use`: share of the levels that occur, the mean over channels;
    - `code_entropy`: of a number in bits, the mean over channels; log2 of the levels at most.
    """
    logarithms = np.log2(histogram, where=histogram > 0, out=np.zeros_like(histogram))
    return {
        'code_use': float(np.mean(histogram > 0)),
        'code_entropy': float(-np.mean(np.sum(histogram * logarithms, axis=1))),
    }


def bin_indices() -> np.ndarray:
    """The middles of `BINS` equal parts of the noise index, `[BINS]`, float32."""
    return (np.arange(BINS, dtype=np.float32) + 0.5) / BINS


def make_measure(model: Music2Latent, huber_scale: float, delta: float) -> Measure:
    """Makes the function (params, crops `[B, F, T, C]`, after_bin) -> `BinFigures`, jitted inside.

    Each bin is measured at the level in its middle, with separate noise for each crop. Another
    crop's latents are those of the crop B/2 further on. `after_bin()`, if given, is called after
    each bin. In bfloat16 and with a small Δ, the losses at the highest levels are mostly rounding.

    Args:
      model: computes in its config's dtype.
      huber_scale: c of the loss over √n.
      delta: Δ between the student's and the teacher's noise index. Training shrinks it; a fixed one
        makes evaluations comparable.
    """
    condition = jax.jit(functools.partial(_condition, model))
    measure_bin = jax.jit(functools.partial(_measure_bin, model, huber_scale, delta))

    def measure(
        params: Params, crops: np.ndarray, after_bin: Callable[[], None] = lambda: None
    ) -> BinFigures:
        pyramids, spread = condition(params, crops)
        bins = []
        for number, index in enumerate(bin_indices()):
            bins.append(np.asarray(measure_bin(params, crops, pyramids, number, index)))
            after_bin()
        figures = BinFigures(*np.stack(bins, axis=1), **spread)
        if np.array_equal(crops, np.roll(crops, len(crops) // 2, axis=0)):
            nan = np.full(BINS, np.nan)
            figures = figures._replace(error_other=nan, magnitude_error_other=nan)
        return figures

    measure.programs = condition, measure_bin
    return measure


def _condition(
    model: Music2Latent, params: Params, crops: jax.Array
) -> tuple[Any, dict[str, jax.Array]]:
    """Pyramids of each crop's own, another crop's and the mean latents; the latents' spread."""
    latents = model.apply({'params': params}, crops, method='encode')
    other = jnp.roll(latents, len(crops) // 2, axis=0)
    mean = jnp.broadcast_to(jnp.mean(latents, axis=(0, 1)), latents.shape)
    pyramids = jax.lax.map(
        lambda given: model.apply({'params': params}, given, method='pyramid'),
        jnp.stack([latents, other, mean]),  # [3, B, T/8, C]
    )
    return pyramids, latent_spread(latent_moments(latents, model.config))


def _measure_bin(
    model: Music2Latent,
    huber_scale: float,
    delta: float,
    params: Params,
    crops: jax.Array,
    pyramids: Any,
    number: jax.Array,
    index: jax.Array,
) -> jax.Array:
    """The first six of `BinFigures` at a noise index, `[6]`; `number` is the bin's."""
    keys = jax.random.split(random_key(_SEED), len(crops))
    noise = jax.vmap(
        lambda key: jax.random.normal(jax.random.fold_in(key, number), crops.shape[1:])
    )(keys)
    sigma, teacher_sigma = (
        jnp.full(len(crops), model.config.noise.sigma(i))
        for i in (index, teacher_index(index, delta))
    )

    def denoise(given: tuple[jax.Array, jax.Array]) -> jax.Array:
        kind, sigma = given
        pyramid = jax.tree.map(lambda level: level[kind], pyramids)
        noisy = add_noise(crops, noise, sigma)
        return model.apply({'params': params}, noisy, sigma, pyramid, method='denoise')

    # One after another, so that the model is compiled once.
    kinds = jnp.array([_OWN, _OWN, _OTHER, _MEAN])
    sigmas = jnp.stack([sigma, teacher_sigma, sigma, sigma])
    student, teacher, other, mean = jax.lax.map(denoise, (kinds, sigmas))
    losses = consistency_loss(
        lambda *_: student, lambda *_: teacher, crops, noise, sigma, teacher_sigma, huber_scale
    )
    errors = [_rms(output - crops) for output in (student, other, mean)]
    of_magnitudes = [_rms(magnitudes(output) - magnitudes(crops)) for output in (student, other)]
    return jnp.stack([jnp.mean(losses), *errors, *of_magnitudes])


def name_figures(figures: BinFigures, levels: NoiseLevels) -> dict[str, float]:
    """The figures and their ratios by name.

    - `loss_sigma_…` and `error_sigma_…`, with the level σ in the name; `loss` and `error`: their
      means;
    - `latent_gain_sigma_…`: the error with another crop's latents over that with its own, 1 where
      the latents are not used; `latent_gain`: the least of those from σ = 5 on;
      `latent_gain_over_mean…`: the same with the mean of all latents in place of another crop's;
      `latent_gain_magnitude…`: as `latent_gain…`, of the magnitudes' error;
    - `latent_std` and `latents_saturated`, see `BinFigures`; of a discrete model, `token_figures`.
    """
    figures = jax.tree.map(lambda value: np.asarray(value, np.float64), figures)
    sigmas = np.array([float(sigma) for sigma in levels.sigma(bin_indices())])
    by_level = {
        'loss': figures.loss,
        'error': figures.error,
        'latent_gain': figures.error_other / figures.error,
        'latent_gain_over_mean': figures.error_mean / figures.error,
        'latent_gain_magnitude': figures.magnitude_error_other / figures.magnitude_error,
    }
    scalars = {
        'loss': np.mean(figures.loss),
        'error': np.mean(figures.error),
        'latent_std': figures.latent_std,
        'latents_saturated': figures.latents_saturated,
    }
    for name in by_level.keys() - scalars.keys():
        scalars[name] = np.min(by_level[name][sigmas >= min(_NOISY, sigmas[-1])])
    if figures.token_histogram is not None:
        scalars |= token_figures(figures.token_histogram)
    for name, values in by_level.items():
        for sigma, value in zip(sigmas, values, strict=True):
            scalars[f'{name}_sigma_{sigma:.2g}'] = value
    return {name: float(value) for name, value in scalars.items()}


def _rms(values: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.mean(values**2))

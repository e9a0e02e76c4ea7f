"""A loss that trains encoder and decoder on the spectrogram itself, without the denoiser.

In short trainings the latents stay unused: what comes of them is noise to the denoiser at first, so
that it learns to leave them alone, and then they get no gradient. This loss needs no denoiser.
"""

import dataclasses

import jax
import jax.numpy as jnp

from m2l_jax.consistency.loss import pseudo_huber
from m2l_jax.interface.errors import InputError


@dataclasses.dataclass(frozen=True)
class AuxiliarySchedule:
    """The passage of encoder and decoder from the auxiliary loss to the consistency loss.

    Their share of the first falls linearly from 1 to 0, and that of the second rises as it falls.
    The denoiser learns from the consistency loss alone, from the first step.

    Attributes:
      weight: of the auxiliary loss; 0 trains without, as the paper does.
      end: the part of the training after which it has no share any more.
    """

    weight: float = 0.0
    end: float = 0.5

    def __post_init__(self):
        if self.weight < 0:
            raise InputError(f'config.consistency.auxiliary.weight={self.weight} must be 0 or more')
        if not 0 < self.end <= 1:
            raise InputError(
                f'config.consistency.auxiliary.end={self.end} must be above 0 and at most 1'
            )

    def share(self, progress: jax.Array) -> jax.Array:
        """The auxiliary loss's share at `progress` in [0, 1] of the training."""
        return jnp.maximum(1 - progress / self.end, 0.0)


def auxiliary_loss(
    activation: jax.Array, spectrogram: jax.Array, sigma_data: float, huber_scale: float
) -> jax.Array:
    """Distance of the finest conditioning from the spectrogram itself, a row each: `[B]`, float32.

    Means over each third of its channels, times σ_data, stand for real part, imaginary part and
    magnitude, so that no parameter is added to the model. Distances are the pseudo-Huber one of the
    consistency loss; that of the magnitudes, which are learnt sooner than phases, counts by itself.

    Args:
      activation: of level 0 of the pyramid, `[B, F, T, C]`.
      spectrogram: clean and compressed, `[B, F, T, 2]`.
      sigma_data: standard deviation of spectrograms.
      huber_scale: c of the distance over √n.
    """
    activation = sigma_data * activation.astype(jnp.float32)
    real, imaginary, magnitude = (jnp.mean(activation[..., k::3], axis=-1) for k in range(3))
    parts = jnp.stack([real, imaginary], axis=-1) - spectrogram
    magnitudes = magnitude - jnp.sqrt(jnp.sum(spectrogram**2, axis=-1))
    return pseudo_huber(parts, huber_scale) + pseudo_huber(magnitudes, huber_scale)

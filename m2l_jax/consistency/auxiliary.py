"""A loss that trains encoder and decoder on the spectrogram itself, without the denoiser.

Otherwise the denoiser learns, in short trainings, to ignore latents that say nothing yet; ignored,
they get no gradient.
"""

import dataclasses

import jax
import jax.numpy as jnp

from m2l_jax.audio.planes import magnitudes
from m2l_jax.consistency.loss import pseudo_huber
from m2l_jax.interface.errors import InputError


@dataclasses.dataclass(frozen=True)
class AuxiliarySchedule:
    """The passage of encoder and decoder from the auxiliary loss to the consistency loss.

    The share of the first falls linearly from 1 to 0; the second has the rest. The denoiser learns
    from the consistency loss alone.

    Attributes:
      weight: of the auxiliary loss; 0 trains without, as the paper does.
      end: the part of the training, in (0, 1], in which its share falls to 0.
    """

    weight: float = 0.0
    end: float = 0.5

    def __post_init__(self):
        if self.weight < 0:
            raise InputError(f'config.consistency.auxiliary.weight={self.weight} must be 0 or more')
        if not 0 < self.end <= 1:
            raise InputError(f'config.consistency.auxiliary.end={self.end} must be in (0, 1]')

    def share(self, progress: jax.Array) -> jax.Array:
        """The auxiliary loss's share at `progress` in [0, 1] of the training."""
        return jnp.maximum(1 - progress / self.end, 0.0)


def auxiliary_loss(
    activation: jax.Array, spectrogram: jax.Array, sigma_data: float, huber_scale: float
) -> jax.Array:
    """Distance of level 0 of the pyramid from the clean spectrogram, a row each: `[B]`, float32.

    Means over equal parts of the channels of `activation` `[B, F, T, C]`, times σ_data, stand for
    the planes of `spectrogram` `[B, F, T, 2·A]` and then the magnitude of each of its A audio
    channels, thirds for mono: that adds no parameter. The distance is `pseudo_huber`; magnitudes,
    learnt sooner than phases, count separately.
    """
    activation = sigma_data * activation.astype(jnp.float32)
    planes, wanted = spectrogram.shape[-1], magnitudes(spectrogram)
    parts = planes + wanted.shape[-1]
    means = [jnp.mean(activation[..., k::parts], axis=-1) for k in range(parts)]
    differences = jnp.stack(means[:planes], axis=-1) - spectrogram
    of_magnitudes = jnp.stack(means[planes:], axis=-1) - wanted
    return pseudo_huber(differences, huber_scale) + pseudo_huber(of_magnitudes, huber_scale)

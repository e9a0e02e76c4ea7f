import jax
import numpy as np
import pytest

from m2l_jax.consistency.auxiliary import AuxiliarySchedule, auxiliary_loss
from m2l_jax.interface.errors import InputError

SIGMA_DATA = 0.5


def test_the_share_falls_from_one_to_zero():
    progress = np.array([0.0, 0.1, 0.25, 0.5, 1.0])
    np.testing.assert_allclose(AuxiliarySchedule(3.0, 0.5).share(progress), [1, 0.8, 0.5, 0, 0])


def test_a_spectrogram_in_the_thirds_of_the_channels_has_no_loss():
    spectrogram = np.random.default_rng(0).standard_normal((2, 8, 4, 2)).astype(np.float32)
    magnitude = np.linalg.norm(spectrogram, axis=-1, keepdims=True)
    thirds = np.concatenate([spectrogram, magnitude], axis=-1) / SIGMA_DATA
    # Seven channels, of which the first kind has three: what differs within a third cancels out.
    within = np.array([-1, 5, 2, 1, -5, -2, 0], np.float32)
    activation = thirds[..., np.arange(7) % 3] + within
    loss = auxiliary_loss(activation, spectrogram, SIGMA_DATA, 1e-3)
    np.testing.assert_allclose(loss, 0, atol=1e-4)


def test_stereo_takes_a_sixth_for_each_plane_and_magnitude():
    """Left and right, real and imaginary; then their magnitudes."""
    spectrogram = np.random.default_rng(1).standard_normal((2, 8, 4, 4)).astype(np.float32)
    magnitudes = np.linalg.norm(spectrogram.reshape(2, 8, 4, 2, 2), axis=-1)
    sixths = np.concatenate([spectrogram, magnitudes], axis=-1) / SIGMA_DATA
    activation = sixths[..., np.arange(12) % 6] + np.repeat([1, -1], 6).astype(np.float32)
    loss = auxiliary_loss(activation, spectrogram, SIGMA_DATA, 1e-3)
    np.testing.assert_allclose(loss, 0, atol=1e-4)


def test_silence_for_a_sound_costs_its_parts_and_its_magnitudes():
    spectrogram = np.zeros((1, 8, 4, 2), np.float32)
    spectrogram[0, 2, 1] = 3, -4
    loss = auxiliary_loss(np.zeros((1, 8, 4, 6), np.float32), spectrogram, SIGMA_DATA, 1e-9)
    np.testing.assert_allclose(loss, [10], rtol=1e-6)
    gradient = jax.grad(
        lambda a: auxiliary_loss(a, np.zeros_like(spectrogram), SIGMA_DATA, 1e-3).sum()
    )(np.zeros((1, 8, 4, 6), np.float32))
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize(('weight', 'end', 'field'), [(-1, 0.5, 'weight'), (1, 0, 'end')])
def test_an_impossible_schedule_is_told(weight, end, field):
    with pytest.raises(InputError, match=f'config.consistency.auxiliary.{field}='):
        AuxiliarySchedule(weight, end)

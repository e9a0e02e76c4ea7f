import jax.numpy as jnp
import numpy as np
import pytest

from m2l_jax.audio.planes import as_stereo, describe_surplus, from_planes, magnitudes, to_planes
from m2l_jax.audio.spectrogram import SpectrogramConfig, synthesise, to_spectrogram
from tests.conftest import make_music

CONFIG = SpectrogramConfig(window=256, hop=64)
SAMPLES = CONFIG.samples(20)


@pytest.fixture(scope='module')
def music():
    return make_music(1, channels=2)[:, :SAMPLES]


@pytest.mark.parametrize('as_array', [np.asarray, jnp.asarray], ids=['numpy', 'jax'])
def test_planes_are_left_then_right_real_then_imaginary(music, as_array):
    planes = to_planes(as_array(music), CONFIG, 'left_right')
    assert planes.shape == (128, 20, 4)
    assert planes.dtype == np.float32
    left, right = (to_spectrogram(as_array(channel), CONFIG) for channel in music)
    np.testing.assert_array_equal(planes[..., :2], left)
    np.testing.assert_array_equal(planes[..., 2:], right)


def test_swapped_channels_swap_planes(music):
    planes, swapped = (to_planes(each, CONFIG, 'left_right') for each in (music, music[::-1]))
    np.testing.assert_array_equal(swapped, planes[..., [2, 3, 0, 1]])


def test_mid_and_side_are_orthonormal_before_the_compression(music):
    left, right = music
    mid, side = (left + right) / np.sqrt(2), (left - right) / np.sqrt(2)
    planes = to_planes(music, CONFIG, 'mid_side')
    expected = to_planes(np.stack([mid, side]).astype(np.float32), CONFIG, 'left_right')
    np.testing.assert_allclose(planes, expected, atol=1e-5)
    assert np.sum(mid**2 + side**2) == pytest.approx(np.sum(music**2), rel=1e-6)


def test_equal_channels_have_no_side(music):
    planes = to_planes(as_stereo(music[:1]), CONFIG, 'mid_side')
    assert np.all(planes[..., 2:] == 0)
    one = to_planes(as_stereo(music[:1]), CONFIG, 'left_right')
    np.testing.assert_array_equal(one[..., :2], one[..., 2:])
    # √2 times the amplitude, raised to α.
    np.testing.assert_allclose(planes[..., :2], 2 ** (CONFIG.alpha / 2) * one[..., :2], atol=1e-5)


@pytest.mark.parametrize('layout', ['left_right', 'mid_side'])
@pytest.mark.parametrize('as_array', [np.asarray, jnp.asarray], ids=['numpy', 'jax'])
def test_planes_turn_back_into_the_same_waveform(music, as_array, layout):
    batch = as_array(np.stack([music, 0.5 * music[::-1]]))  # [2, 2, N]
    restored = from_planes(to_planes(batch, CONFIG, layout), CONFIG, layout)
    assert restored.shape == batch.shape
    inner = slice(CONFIG.reach, -CONFIG.reach)
    np.testing.assert_allclose(restored[..., inner], batch[..., inner], atol=2e-4)


def test_mono_has_the_planes_of_its_spectrogram(music):
    planes = to_planes(music[0], CONFIG)
    np.testing.assert_array_equal(planes, to_spectrogram(music[0], CONFIG))
    np.testing.assert_array_equal(from_planes(planes, CONFIG), synthesise(planes, CONFIG))


def test_magnitudes_are_those_of_each_channel():
    planes = np.array([[3.0, 4.0, -5.0, 12.0], [0.0, 0.0, 0.0, -1.0]])
    np.testing.assert_array_equal(magnitudes(planes), [[5, 13], [0, 1]])
    np.testing.assert_array_equal(magnitudes(planes[:, :2]), [[5], [0]])


def test_more_than_two_channels_are_named():
    assert [describe_surplus(channels) for channels in (1, 2)] == ['', '']
    assert 'has 6 channels, and a stereo model takes one or two' in describe_surplus(6)

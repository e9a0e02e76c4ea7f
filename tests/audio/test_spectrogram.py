import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import m2l_jax
from m2l_jax.audio import files
from m2l_jax.audio.spectrogram import SpectrogramConfig, to_spectrogram, to_waveform
from m2l_jax.interface.errors import InputError
from tests.conftest import make_music

CONFIG = SpectrogramConfig()


def slow_spectrogram(waveform: np.ndarray) -> np.ndarray:
    """One frame, one bin and one definition at a time, in float64."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2048)
    frames = 1 + (len(waveform) - 2048) // 512
    result = np.zeros((1024, frames, 2))
    for t in range(frames):
        spectrum = np.fft.rfft(window * waveform[512 * t : 512 * t + 2048].astype(np.float64))
        for f in range(1024):
            value = 0.34 * abs(spectrum[f]) ** 0.65 * np.exp(1j * np.angle(spectrum[f]))
            result[f, t] = value.real, value.imag
    return result


@pytest.mark.parametrize('as_array', [np.asarray, jnp.asarray])
def test_spectrogram_equals_the_definition(as_array):
    waveform = make_music(0.1)[0]
    spectrogram = to_spectrogram(as_array(waveform), CONFIG)
    assert type(spectrogram) is type(as_array(waveform))
    assert spectrogram.dtype == np.float32
    # The compression's slope grows without bound towards 0, and with it float32's rounding.
    np.testing.assert_allclose(spectrogram, slow_spectrogram(waveform), atol=1e-4)


def test_a_crop_of_34304_samples_has_64_frames():
    assert CONFIG.frames(34_304) == 64
    assert CONFIG.samples(64) == 34_304
    assert CONFIG.frames(34_303) == 63


@pytest.mark.parametrize('jit', [False, True])
def test_inverse_restores_the_waveform_away_from_its_ends(jit):
    waveform = make_music(1, channels=2)[None]  # two leading axes
    waveform = jnp.asarray(waveform) if jit else waveform
    back_and_forth = lambda x: to_waveform(to_spectrogram(x, CONFIG), CONFIG)  # noqa: E731
    restored = (jax.jit(back_and_forth) if jit else back_and_forth)(waveform)
    inner = slice(2048, restored.shape[-1] - 2048)
    error = np.asarray(restored[..., inner] - waveform[..., inner])
    assert 10 * np.log10(np.sum(waveform[..., inner] ** 2) / np.sum(error**2)) > 90
    assert restored.shape == (1, 2, CONFIG.samples(CONFIG.frames(44_100)))


def test_inverse_restores_the_bundled_music():
    path = pathlib.Path(m2l_jax.__file__).parent / 'assets' / 'heldout' / 'greensleeves.ogg'
    waveform = files.read(path, 44_100)
    restored = to_waveform(to_spectrogram(waveform, CONFIG), CONFIG)
    inner = slice(2048, restored.shape[-1] - 2048)
    error = restored[:, inner] - waveform[:, inner]
    assert 10 * np.log10(np.sum(waveform[:, inner] ** 2) / np.sum(error**2)) > 90


def test_nan_stays_visible():
    broken = make_music(0.2)[0]
    broken[4000] = np.nan
    spectrogram = to_spectrogram(broken, CONFIG)
    assert np.isnan(spectrogram).any()
    assert np.isnan(to_waveform(spectrogram, CONFIG)).any()


def test_inverse_clips():
    loud = to_spectrogram(9 * make_music(0.2)[0], CONFIG)
    assert np.max(np.abs(to_waveform(loud, CONFIG))) == 1


def test_silence_gives_zeros_and_finite_gradients():
    silence = jnp.zeros(4096)
    assert not np.any(to_spectrogram(silence, CONFIG))

    def energy(waveform):
        spectrogram = to_spectrogram(waveform, CONFIG)
        return jnp.sum(spectrogram**2) + jnp.sum(to_waveform(spectrogram, CONFIG))

    assert np.all(np.isfinite(jax.grad(energy)(silence)))


def test_gradient_equals_finite_differences():
    waveform, direction = jax.random.normal(jax.random.key(0), (2, 2560))
    weights = jax.random.normal(jax.random.key(1), (1024, 2, 2))
    objective = lambda x: jnp.sum(weights * to_spectrogram(x, CONFIG))  # noqa: E731
    derivative = jnp.vdot(jax.grad(objective)(waveform), direction)
    step = 1e-3
    difference = objective(waveform + step * direction) - objective(waveform - step * direction)
    np.testing.assert_allclose(derivative, difference / (2 * step), rtol=0.01)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match='2047 samples are fewer than one window of 2048'):
        to_spectrogram(np.zeros(2047, np.float32), CONFIG)
    with pytest.raises(InputError, match='hop=500 must divide window=2048'):
        SpectrogramConfig(hop=500)

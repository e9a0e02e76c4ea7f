"""Winograd's convolution against the plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m2l_jax.model import winograd
from m2l_jax.model.normalised_convolution import convolve_normalised

_PADS = ((1, 1), (1, 1))


def _random(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def _kernel(inputs, outputs):
    return _random(1, 3, 3, inputs, outputs) / np.sqrt(9 * inputs)


def _plain(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), _PADS, dimension_numbers=('NHWC', 'HWIO', 'NHWC'), precision='highest'
    )


@pytest.mark.parametrize('outputs', [5, 7])
@pytest.mark.parametrize('strip_bytes', [0, 1e9])
@pytest.mark.parametrize('frames', [1, 8, 13])
def test_is_the_plain_convolution(monkeypatch, outputs, strip_bytes, frames):
    monkeypatch.setattr(winograd, '_STRIP_BYTES', strip_bytes)
    x, kernel = _random(0, 2, 12, frames, 5), _kernel(5, outputs)
    np.testing.assert_allclose(winograd.convolve(x, kernel), _plain(x, kernel), atol=1e-5)


def test_strips_divide_the_bins_and_fit(monkeypatch):
    monkeypatch.setattr(winograd, '_STRIP_BYTES', 4 * 64 * 36 * 3 * 10)  # three rows of ten tiles
    assert winograd._strip_bins(bins=16, frames=40, channels=64) == 8
    assert winograd._strip_bins(bins=24, frames=40, channels=64) == 12
    assert winograd._strip_bins(bins=16, frames=400, channels=64) == 4


def test_prepares_each_row_of_the_batch_as_its_own():
    x, kernel = _random(0, 3, 4, 8, 6), _kernel(6, 6)
    gains = jnp.array([1.0, -2.0, 0.5])
    prepared = winograd.convolve(x, kernel, lambda rows, item: rows * gains[item] + 1)
    expected = _plain(x * gains[:, None, None, None] + 1, kernel)
    np.testing.assert_allclose(prepared, expected, atol=1e-5)


def test_errors_are_of_the_size_of_rounding():
    x, kernel = _random(0, 1, 16, 32, 64), _kernel(64, 64)
    with jax.enable_x64(True):
        exact = np.asarray(_plain(jnp.asarray(x, jnp.float64), jnp.asarray(kernel, jnp.float64)))
    assert np.linalg.norm(winograd.convolve(x, kernel) - exact) / np.linalg.norm(exact) < 1.5e-6


@pytest.mark.parametrize(
    ('x', 'kernel', 'dtype', 'pays'),
    [
        ((1, 256, 856, 64), (3, 3, 64, 64), jnp.float32, True),
        ((1, 256, 856, 64), (3, 3, 64, 64), jnp.bfloat16, False),
        ((1, 256, 64, 64), (3, 3, 64, 64), jnp.float32, False),  # too little work
        ((1, 254, 856, 64), (3, 3, 64, 64), jnp.float32, False),  # no whole tiles
        ((1, 1024, 856, 2), (3, 3, 2, 64), jnp.float32, False),
        ((1, 1024, 856, 64), (1, 1, 64, 64), jnp.float32, False),
        ((1, 8560, 512), (3, 512, 512), jnp.float32, False),
    ],
)
def test_pays_for_much_work_in_float32(x, kernel, dtype, pays):
    shapes = jax.ShapeDtypeStruct(x, dtype), jax.ShapeDtypeStruct(kernel, dtype)
    assert winograd.pays(*shapes) == pays


@pytest.mark.parametrize('lengths', [None, [8, 3]])
@pytest.mark.parametrize('winograds', [True, False])
def test_normalised_convolution_is_of_silu(monkeypatch, lengths, winograds):
    monkeypatch.setattr(winograd, 'pays', lambda x, kernel: winograds)
    lengths = None if lengths is None else jnp.array(lengths)
    x, kernel = _random(0, 2, 4, 8, 6), _kernel(6, 6)
    gain, offset = _random(2, 2, 1, 1, 6), _random(3, 2, 1, 1, 6)

    def plain(x, gain, offset, kernel):
        activated = jax.nn.silu(x * gain + offset)
        if lengths is not None:
            activated *= (jnp.arange(8) < lengths[:, None])[:, None, :, None]
        return _plain(activated, kernel)

    def ours(*arrays):
        return convolve_normalised(*arrays, lengths, _PADS)

    arrays = (x, gain, offset, kernel)
    np.testing.assert_allclose(jax.jit(ours)(*arrays), plain(*arrays), atol=1e-5)
    weights = _random(4, 2, 4, 8, 6)
    gradients, expected = (
        jax.grad(lambda arrays, way=way: jnp.sum(way(*arrays) * weights))(arrays)
        for way in (ours, plain)
    )
    for gradient, of_plain in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, of_plain, atol=1e-4)

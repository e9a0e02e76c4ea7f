"""Convolutions that shrink frequency, in strips, against XLA's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m2l_jax.cpu_kernels import strided
from m2l_jax.cpu_kernels.convolution import convolve_prepared
from m2l_jax.model import ops


def _random(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


_convolve = functools.partial(ops.convolve, strides=(4, 1), kernels='cpu')


def _convolve_scaled(x, kernel, affine, lengths):
    prepare = functools.partial(ops.scale_and_activate, None)
    return convolve_prepared(prepare, (affine, lengths), x, kernel, *_way(4))


def _inputs(stride):
    return _random(0, 2, 6 * stride, 7, 5), _random(1, stride + 1, 1, 5, 3)


def _way(stride):
    return (stride, 1), ((stride // 2, stride // 2), (0, 0))


def _plain(x, kernel):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        *_way(len(kernel) - 1),
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        precision='highest',
    )


@pytest.mark.parametrize('strip_bytes', [0, 2 * 4 * 4 * 2 * 7 * 5, 1e9])
@pytest.mark.parametrize('stride', [2, 4])
def test_is_the_plain_convolution(monkeypatch, stride, strip_bytes):
    monkeypatch.setattr(strided, '_STRIP_BYTES', strip_bytes)
    np.testing.assert_allclose(
        strided.convolve(*_inputs(stride)), _plain(*_inputs(stride)), atol=1e-5
    )


@pytest.mark.parametrize('strip_bytes', [0, 1e9])
def test_pads_with_zeros_what_is_prepared(monkeypatch, strip_bytes):
    monkeypatch.setattr(strided, '_STRIP_BYTES', strip_bytes)
    x, kernel = _inputs(4)
    prepared = strided.convolve(x, kernel, lambda rows: 2 * rows + 1)
    np.testing.assert_allclose(prepared, _plain(2 * x + 1, kernel), atol=2e-5)


@pytest.mark.parametrize(
    ('x', 'kernel', 'dtype', 'way', 'pays'),
    [
        ((1, 1024, 856, 64), (5, 1, 64, 64), jnp.float32, _way(4), True),
        ((1, 1024, 856, 64), (3, 1, 64, 64), jnp.float32, _way(2), True),
        ((1, 1024, 856, 64), (5, 1, 64, 64), jnp.bfloat16, _way(4), False),
        ((1, 1024, 64, 64), (5, 1, 64, 64), jnp.float32, _way(4), False),  # too little work
        ((1, 1022, 856, 64), (5, 1, 64, 64), jnp.float32, _way(4), False),
        ((1, 1024, 856, 64), (5, 1, 64, 64), jnp.float32, ((4, 1), ((0, 0), (0, 0))), False),
        ((1, 1024, 856, 64), (5, 1, 64, 64), jnp.float32, ((1, 1), ((2, 2), (0, 0))), False),
        ((1, 1024, 856, 64), (3, 3, 64, 64), jnp.float32, ((2, 2), ((1, 1), (1, 1))), False),
        ((1, 1024, 856, 64), (1, 1, 64, 640), jnp.float32, ((1, 1), ((0, 0), (0, 0))), False),
        ((1, 856000, 64), (5, 64, 64), jnp.float32, ((4,), ((2, 2),)), False),
    ],
)
def test_pays_for_much_work_in_float32(x, kernel, dtype, way, pays):
    shapes = jax.ShapeDtypeStruct(x, dtype), jax.ShapeDtypeStruct(kernel, dtype)
    assert strided.pays(*shapes, *way) == pays


def _assert_equal_with_gradients(ours, plain, arrays):
    np.testing.assert_allclose(jax.jit(ours)(*arrays), plain(*arrays), atol=3e-5)
    value, pull_back = jax.vjp(ours, *arrays)
    np.testing.assert_array_equal(value, ours(*arrays))
    gradient = _random(4, *value.shape)
    expected = jax.vjp(plain, *arrays)[1](gradient)
    for of_ours, of_plain in zip(pull_back(gradient), expected, strict=True):
        np.testing.assert_allclose(of_ours, of_plain, atol=2e-4)


def test_has_the_gradients_of_the_plain_convolution(in_strips):
    _assert_equal_with_gradients(_convolve, _plain, _inputs(4))


@pytest.mark.parametrize('lengths', [None, [7, 3]])
def test_of_what_is_normalised(in_strips, lengths):
    lengths = None if lengths is None else jnp.array(lengths)

    def plain(x, gain, offset, kernel):
        normalised = x * gain + offset
        if lengths is not None:
            normalised *= (jnp.arange(7) < lengths[:, None])[:, None, :, None]
        return _plain(normalised, kernel)

    def ours(x, gain, offset, kernel):
        return _convolve_scaled(x, kernel, (gain, offset), lengths)

    x, kernel = _inputs(4)
    _assert_equal_with_gradients(
        ours, plain, (x, _random(2, 2, 1, 1, 5), _random(3, 2, 1, 1, 5), kernel)
    )


def test_what_lies_beyond_a_row_is_not_met(in_strips):
    x, kernel = _inputs(4)
    gain, offset, lengths = _random(2, 2, 1, 1, 5), _random(3, 2, 1, 1, 5), jnp.array([7, 3])
    ours, expected = (
        _convolve_scaled(a, kernel, (gain, offset), lengths)
        for a in (x.at[1, :, 3:].set(jnp.nan), x)
    )
    np.testing.assert_array_equal(ours, expected)

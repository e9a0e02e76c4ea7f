"""Winograd's convolution against the plain one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m2l_jax.cpu_kernels import winograd
from m2l_jax.cpu_kernels.convolution import convolve_prepared
from m2l_jax.model import ops

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
    x, kernel = _random(0, 2, 24, frames, 5), _kernel(5, outputs)
    np.testing.assert_allclose(winograd.convolve(x, kernel), _plain(x, kernel), atol=1e-5)


@pytest.mark.parametrize('outputs', [5, 7])
@pytest.mark.parametrize('strip_bytes', [0, 1e9])
@pytest.mark.parametrize('frames', [1, 8, 13])
def test_gradients_are_those_of_the_plain_convolution(monkeypatch, outputs, strip_bytes, frames):
    monkeypatch.setattr(winograd, '_GRADIENT_STRIP_BYTES', strip_bytes)
    x, kernel = _random(0, 2, 24, frames, 5), _kernel(5, outputs)
    gradient = _random(2, 2, 24, frames, outputs)
    expected = jax.vjp(_plain, 2 * x + 1, kernel)[1](gradient)
    pulled_back = winograd.pull_back(x, kernel, gradient, lambda rows: 2 * rows + 1)
    for ours, plain in zip(pulled_back, expected, strict=True):
        np.testing.assert_allclose(ours, plain, atol=1e-5 * np.max(np.abs(plain)))


def test_strips_are_of_whole_tiles_that_fit():
    most_bytes = 4 * 64 * 36 * 5 * 10  # five rows of ten tiles
    assert winograd._strip_bins(48, 40, 64, most_bytes) == 16
    assert winograd._strip_bins(16, 400, 64, most_bytes) == 8


def test_products_are_enough_to_be_made_side_by_side():
    shapes = jax.ShapeDtypeStruct((1, 8, 4, 5), jnp.float32), _kernel(5, 5)
    assert str(jax.make_jaxpr(winograd.convolve)(*shapes)).count('dot_general') == 18


@pytest.mark.parametrize('outputs', [6, 9])
def test_prepares_each_row_once(monkeypatch, outputs):
    monkeypatch.setattr(winograd, '_STRIP_BYTES', 0)  # three strips
    x, kernel = _random(0, 3, 24, 8, 6), _kernel(6, outputs)
    gains = jnp.array([1.0, -2.0, 0.5])[:, None, None, None]
    prepared = winograd.convolve(x, kernel, lambda rows: rows * gains + 1)
    np.testing.assert_allclose(prepared, _plain(x * gains + 1, kernel), atol=3e-5)


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
        ((1, 252, 856, 64), (3, 3, 64, 64), jnp.float32, False),  # a single row of tiles remains
        ((1, 1024, 856, 2), (3, 3, 2, 64), jnp.float32, False),
        ((1, 1024, 856, 64), (1, 1, 64, 64), jnp.float32, False),
        ((1, 8560, 512), (3, 512, 512), jnp.float32, False),
    ],
)
def test_pays_for_much_work_in_float32(x, kernel, dtype, pays):
    shapes = jax.ShapeDtypeStruct(x, dtype), jax.ShapeDtypeStruct(kernel, dtype)
    sides = len(x) - 2
    assert winograd.pays(*shapes, (1,) * sides, ((1, 1),) * sides) == pays


@pytest.mark.parametrize('way', [((2, 2), _PADS), ((1, 1), ((0, 0), (1, 1)))])
def test_is_for_one_way_of_convolving(way):
    shapes = (1, 256, 856, 64), (3, 3, 64, 64)
    assert not winograd.pays(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes), *way)


def _convolve(x, gain, offset, kernel, lengths=None):
    prepare = functools.partial(ops.scale_and_activate, jax.nn.silu)
    operands = (gain, offset), lengths
    return convolve_prepared(prepare, operands, x, kernel, (1, 1), _PADS)


def _normalised_inputs(outputs=6):
    gain, offset = _random(2, 2, 1, 1, 6), _random(3, 2, 1, 1, 6)
    return _random(0, 2, 24, 8, 6), gain, offset, _kernel(6, outputs)


@pytest.mark.parametrize('lengths', [None, [8, 3]])
@pytest.mark.parametrize('outputs', [6, 9])
def test_normalised_convolution_is_of_silu(in_strips, lengths, outputs):
    lengths = None if lengths is None else jnp.array(lengths)

    def plain(x, gain, offset, kernel):
        activated = jax.nn.silu(x * gain + offset)
        if lengths is not None:
            activated *= (jnp.arange(8) < lengths[:, None])[:, None, :, None]
        return _plain(activated, kernel)

    def ours(*arrays):
        return _convolve(*arrays, lengths)

    arrays = _normalised_inputs(outputs)
    np.testing.assert_allclose(jax.jit(ours)(*arrays), plain(*arrays), atol=3e-5)
    value, pull_back = jax.vjp(ours, *arrays)
    np.testing.assert_array_equal(value, ours(*arrays))
    gradient = _random(4, *value.shape)
    for of_ours, of_plain in zip(
        pull_back(gradient), jax.vjp(plain, *arrays)[1](gradient), strict=True
    ):
        np.testing.assert_allclose(of_ours, of_plain, atol=2e-4)


def test_what_lies_beyond_a_row_is_not_met(in_strips):
    x, *others = _normalised_inputs()
    spoilt = x.at[1, :, 3:].set(jnp.nan)
    lengths = jnp.array([8, 3])
    ours, expected = (_convolve(a, *others, lengths) for a in (spoilt, x))
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize('outputs', [6, 9])
def test_shards_of_a_batch_are_convolved_by_themselves(in_strips, outputs):
    mesh = jax.sharding.Mesh(jax.devices()[:2], ('data',))
    split, whole = jax.P('data'), jax.P()

    def loss(x, gain, offset, kernel):
        y = _convolve(x, gain, offset, kernel)
        return jnp.sum(jax.lax.stop_gradient(y) * y)

    def differentiate(*arrays):
        *own, kernel = arrays
        arrays = (*own, jax.lax.pcast(kernel, 'data', to='varying'))  # as a training step's are
        return loss(*arrays)[None], jax.grad(loss)(*arrays)

    shard = jax.shard_map(
        differentiate,
        mesh=mesh,
        in_specs=(split, split, split, whole),
        out_specs=(split, split),
    )
    arrays = _normalised_inputs(outputs)
    losses, gradient = jax.jit(shard)(*arrays)
    np.testing.assert_allclose(jnp.sum(losses), loss(*arrays), rtol=1e-4)
    np.testing.assert_allclose(gradient, jax.grad(loss)(*arrays), rtol=1e-3, atol=1e-3)

"""Convolutions as products of patches in bfloat16, against XLA's of rounded operands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m2l_jax.cpu_kernels import patches
from m2l_jax.cpu_kernels.convolution import convolve_prepared


def _random(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def _plain(x, kernel, strides, pads):
    layout = ('NHWC', 'HWIO', 'NHWC')
    return jax.lax.conv_general_dilated(
        x, kernel, strides, pads, dimension_numbers=layout, precision='highest'
    )


def _rounded(x):
    return x.astype(jnp.bfloat16).astype(jnp.float32)


_WAYS = [
    ((3, 3), (2, 2), ((1, 1), (1, 1))),
    ((5, 1), (4, 1), ((2, 2), (0, 0))),
    ((2, 2), (1, 1), ((1, 1), (1, 1))),
    ((2, 1), (1, 1), ((1, 1), (0, 0))),
    ((3, 3), (1, 1), ((1, 1), (1, 1))),
    ((1, 1), (1, 1), ((0, 0), (0, 0))),
]


@pytest.mark.parametrize('strip_bytes', [0, 2000, 1e9])
@pytest.mark.parametrize(('sides', 'strides', 'pads'), _WAYS)
def test_is_the_plain_convolution_of_rounded_operands(
    monkeypatch, sides, strides, pads, strip_bytes
):
    """Products of 8 by 8 bits are exact in float32: only the order of sums differs."""
    monkeypatch.setattr(patches, '_STRIP_BYTES', strip_bytes)
    x, kernel = _random(0, 2, 12, 8, 5), _random(1, *sides, 5, 3)
    ours = patches.convolve(x, kernel, lambda rows: 2 * rows + 1, strides=strides, pads=pads)
    expected = _plain(_rounded(2 * x + 1), _rounded(kernel), strides, pads)
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, expected, atol=1e-5 * np.max(np.abs(expected)))


def test_multiplies_bfloat16():
    shapes = jax.ShapeDtypeStruct((1, 8, 4, 5), jnp.float32), _random(0, 3, 3, 5, 5)
    ways = {'strides': (1, 1), 'pads': ((1, 1), (1, 1))}
    program = jax.jit(lambda *a: patches.convolve(*a, **ways)).lower(*shapes).as_text()
    (product,) = [line for line in program.splitlines() if 'dot_general' in line]
    assert 'xbf16>, tensor<45x5xbf16>) -> tensor<' in product


@pytest.mark.parametrize(('sides', 'strides', 'pads'), _WAYS)
def test_gradients_are_those_of_float32(in_strips, sides, strides, pads):
    x, kernel = _random(0, 2, 12, 8, 5), _random(1, *sides, 5, 3)

    def convolve(products):
        def function(x, kernel, gain):
            operands = (gain,)
            return convolve_prepared(
                lambda rows, gain: rows * gain, operands, x, kernel, strides, pads, products
            )

        return jax.vjp(function, x, kernel, jnp.float32(1.5))

    (value, pull_back), (expected, expected_pull_back) = map(convolve, ('bfloat16', 'float32'))
    assert 1e-4 < np.linalg.norm(value - expected) / np.linalg.norm(expected) < 0.03
    gradient = _random(2, *value.shape)
    for ours, theirs in zip(pull_back(gradient), expected_pull_back(gradient), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ('x', 'kernel', 'dtype', 'strides', 'pays'),
    [
        ((1, 256, 856, 128), (3, 3, 128, 256), jnp.float32, (2, 2), True),
        ((1, 128, 428, 256), (2, 2, 256, 512), jnp.float32, (1, 1), True),
        ((1, 256, 856, 128), (1, 1, 128, 128), jnp.float32, (1, 1), True),
        ((1, 256, 856, 128), (3, 3, 128, 256), jnp.bfloat16, (2, 2), False),
        ((1, 16, 16, 128), (3, 3, 128, 256), jnp.float32, (2, 2), False),  # too little work
        ((1, 1024, 856, 64), (1, 1, 64, 64), jnp.float32, (1, 1), False),
        ((1, 1024, 856, 2), (3, 3, 2, 64), jnp.float32, (1, 1), False),
        ((1, 1024, 856, 64), (3, 3, 64, 2), jnp.float32, (1, 1), False),
        ((1, 8560, 512), (3, 512, 512), jnp.float32, (1,), False),
    ],
)
def test_pays_for_much_work_in_float32(x, kernel, dtype, strides, pays):
    shapes = jax.ShapeDtypeStruct(x, dtype), jax.ShapeDtypeStruct(kernel, dtype)
    assert patches.pays(*shapes, strides) == pays

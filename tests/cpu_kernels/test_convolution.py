import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m2l_jax.cpu_kernels.convolution import convolve
from m2l_jax.cpu_kernels.subpixel import convolve_repeated

LAYOUTS = {3: ('NHC', 'HIO', 'NHC'), 4: ('NHWC', 'HWIO', 'NHWC')}


def random(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def plain(x, kernel, strides, pads):
    return jax.lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=LAYOUTS[x.ndim])


def assert_same_with_gradients(function, expected, x, kernel):
    output, pull_back = jax.vjp(function, x, kernel)
    expected_output, expected_pull_back = jax.vjp(expected, x, kernel)
    np.testing.assert_allclose(output, expected_output, atol=1e-4)
    gradient = random(*output.shape, seed=7)
    for ours, theirs in zip(pull_back(gradient), expected_pull_back(gradient), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize(
    ('shape', 'kernel', 'strides', 'pads'),
    [
        ((2, 8, 6, 3), (3, 3, 3, 2), (1, 1), ((1, 1), (1, 1))),
        ((2, 8, 6, 16), (3, 3, 16, 12), (1, 1), ((1, 1), (1, 1))),
        ((2, 8, 6, 16), (3, 3, 16, 12), (2, 2), ((1, 1), (1, 1))),
        ((2, 8, 6, 3), (5, 1, 3, 4), (4, 1), ((2, 2), (0, 0))),
        ((2, 8, 6, 3), (1, 1, 3, 4), (1, 1), ((0, 0), (0, 0))),
        ((2, 8, 6, 3), (2, 2, 3, 4), (1, 1), ((1, 1), (1, 1))),
        ((2, 8, 6, 3), (2, 1, 3, 4), (1, 1), ((0, 1), (0, 0))),
        ((2, 8, 6, 4), (3, 2, 4, 2), (1, 1), ((2, 0), (0, 1))),
        ((2, 8, 6, 4), (2, 1, 4, 2), (1, 1), ((3, 0), (0, 0))),
        ((2, 7, 3), (3, 3, 5), (1,), ((1, 1),)),
        ((2, 7, 5), (3, 5, 2), (1,), ((1, 1),)),
    ],
)
def test_convolution_and_its_gradients_are_those_of_jax(shape, kernel, strides, pads):
    assert_same_with_gradients(
        lambda x, k: convolve(x, k, strides, pads),
        lambda x, k: plain(x, k, strides, pads),
        random(*shape),
        random(*kernel, seed=1),
    )


@pytest.mark.parametrize('outputs', [3, 12])
def test_gradients_in_bfloat16(outputs):
    x, kernel = random(2, 7, 5).astype('bfloat16'), random(3, 5, outputs, seed=1).astype('bfloat16')
    gradient = random(2, 7, outputs, seed=2).astype('bfloat16')
    ours, expected = (
        jax.vjp(lambda *inputs, f=function: f(*inputs, (1,), ((1, 1),)), x, kernel)[1](gradient)
        for function in (convolve, plain)
    )
    for one, other in zip(ours, expected, strict=True):
        assert one.dtype == 'bfloat16'
        scale = np.max(np.abs(other))
        np.testing.assert_allclose(one / scale, other / scale, atol=0.02)


def test_one_output_that_is_not_finite_spoils_no_other_gradient():
    x, kernel = random(1, 7, 5), random(3, 5, 6, seed=1)
    gradient = random(1, 7, 6, seed=2).at[0, 0, 0].set(jnp.inf)
    convolve_it = lambda kernel: convolve(x, kernel, (1,), ((1, 1),))  # noqa: E731
    (of_kernel,) = jax.vjp(convolve_it, kernel)[1](gradient)
    assert np.all(np.isfinite(of_kernel[..., 1:]))


@pytest.mark.parametrize('factors', [(2, 2), (4, 1), (2, 4), (1, 2), (1, 1)])
def test_sub_pixel_convolution_equals_repetition_and_convolution(factors):
    sizes = [factor + 1 if factor > 1 else 1 for factor in factors]

    def repeat_and_convolve(x, kernel):
        for axis, factor in zip((1, 2), factors, strict=True):
            x = jnp.repeat(x, factor, axis=axis)
        return plain(x, kernel, (1, 1), [(size // 2, size // 2) for size in sizes])

    assert_same_with_gradients(
        lambda x, k: convolve_repeated(convolve, x, k, factors),
        repeat_and_convolve,
        random(2, 6, 5, 4),
        random(*sizes, 4, 3, seed=1),
    )

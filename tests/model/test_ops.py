"""The layers' operation, by XLA alone and with kernels for CPUs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m2l_jax.interface.errors import InputError
from m2l_jax.model import ops
from m2l_jax.model.autoencoder import Music2Latent
from tests.model.test_layers import perturbed

SIGMA = jnp.array([0.5, 20.0])


def random(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def pyramid_of(model, frames=8):
    """Random arrays of the pyramid's shapes, and noisy rows."""
    config = model.config
    latents = jnp.zeros((2, frames // config.time_downsampling, config.latent_channels))
    shapes = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), latents, method='pyramid')[0]
    )
    noisy = random(2, config.spectrogram.bins, frames, config.channels)
    return tuple(random(*shape.shape, seed=seed) for seed, shape in enumerate(shapes)), noisy


@pytest.fixture(scope='module')
def model(tiny_config):
    return Music2Latent(tiny_config)


@pytest.fixture(scope='module')
def params(tiny_params):
    return perturbed(tiny_params, 0.1)


def denoise(model, params, pyramid, noisy, sigma):
    return model.apply({'params': params}, noisy, sigma, pyramid, method='denoise')


def encode_and_denoise(model, params, spectrogram, sigma, lengths):
    bound = model.bind({'params': params})
    latents = bound.encode(spectrogram, lengths)
    pyramid = bound.pyramid(latents, lengths)
    return bound.denoise(spectrogram, sigma, pyramid, lengths)


def primitives(jaxpr):
    """Names of all operations in a jaxpr, and in those inside."""
    names = set()
    for equation in jaxpr.eqns:
        names.add(equation.primitive.name)
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(part, 'jaxpr', part)
                if hasattr(inner, 'eqns'):
                    names |= primitives(inner)
    return names


def traced(model, params, differentiate, lengths=None):
    def loss(params, spectrogram, lengths):
        return jnp.sum(encode_and_denoise(model, params, spectrogram, SIGMA, lengths) ** 2)

    function = jax.grad(loss) if differentiate else loss
    return jax.jit(function).trace(params, random(2, 1024, 8, 2), lengths)


@pytest.mark.parametrize('lengths', [None, [1, 0]])
@pytest.mark.parametrize('differentiate', [False, True])
def test_xla_has_no_rules_of_its_own_and_no_branches(
    in_strips, model, params, differentiate, lengths
):
    """Not even for layers that pay on a CPU: no custom gradient, and nothing by platform."""
    lengths = None if lengths is None else jnp.array(lengths)
    found = primitives(traced(model, params, differentiate, lengths).jaxpr.jaxpr)
    assert 'conv_general_dilated' in found
    own = {'custom_vjp_call', 'custom_jvp_call', 'platform_index', 'cond', 'while', 'scan'}
    assert not {name for name in found if name in own or name.startswith('custom_')}


def test_the_check_above_finds_what_it_looks_for(in_strips, model, params):
    for_cpu = model.clone(kernels='cpu')
    found = primitives(traced(for_cpu, params, False, jnp.array([1, 0])).jaxpr.jaxpr)
    assert any(name.startswith('custom_vjp') for name in found)
    assert 'scan' in found or 'while' in found


@pytest.mark.parametrize('platform', ['tpu', 'cuda'])
def test_programs_for_accelerators_have_no_loops(in_strips, model, params, platform):
    lowered = traced(model, params, True, jnp.array([1, 0])).lower(lowering_platforms=(platform,))
    text = lowered.as_text()
    assert 'stablehlo.convolution' in text
    assert 'stablehlo.while' not in text
    assert 'stablehlo.case' not in text


@pytest.mark.parametrize(
    ('platform', 'kernels'), [('cpu', 'cpu'), ('tpu', 'xla'), ('gpu', 'xla'), ('cuda', 'xla')]
)
def test_the_platform_chooses(platform, kernels):
    assert ops.kernels_for(platform) == kernels


def test_unknown_kernels_are_refused(tiny_config):
    with pytest.raises(InputError, match="kernels='gpu' must be one of xla, cpu"):
        Music2Latent(tiny_config, 'gpu').init_params(jax.random.key(0))


def test_jvp_of_denoise_is_the_directional_derivative(model, params):
    """Against `grad`, and against the difference of two values."""
    pyramid, noisy = pyramid_of(model)
    function = functools.partial(denoise, model)
    arguments = (params, pyramid, noisy, SIGMA)
    tangents = jax.tree.map(
        lambda leaf: jnp.asarray(np.random.default_rng(leaf.size).standard_normal(leaf.shape), 'f'),
        arguments,
    )
    value, derivative = jax.jit(lambda *a: jax.jvp(function, *a))(arguments, tangents)
    np.testing.assert_array_equal(value.shape, noisy.shape)

    weights = random(*value.shape, seed=9)
    gradient = jax.jit(jax.grad(lambda *a: jnp.sum(weights * function(*a)), argnums=(0, 1, 2, 3)))
    products = jax.tree.map(lambda a, b: np.vdot(a, b), gradient(*arguments), tangents)
    expected = sum(float(leaf) for leaf in jax.tree.leaves(products))
    np.testing.assert_allclose(np.vdot(weights, derivative), expected, rtol=2e-3)

    step = 1e-3
    both = [
        jax.jit(function)(*jax.tree.map(lambda a, b, s=sign: a + s * step * b, arguments, tangents))
        for sign in (1, -1)
    ]
    difference = (both[0] - both[1]) / (2 * step)
    error = np.linalg.norm(difference - derivative) / np.linalg.norm(derivative)
    assert error < 0.01


def test_denoise_can_be_linearised(model, params):
    pyramid, noisy = pyramid_of(model)
    function = functools.partial(denoise, model, params, pyramid, sigma=SIGMA)
    tangent = random(*noisy.shape, seed=5)

    @jax.jit
    def linearised(noisy, tangent):
        value, linear = jax.linearize(function, noisy)
        return value, linear(tangent)

    value, product = linearised(noisy, tangent)
    expected, derivative = jax.jit(functools.partial(jax.jvp, function))((noisy,), (tangent,))
    np.testing.assert_allclose(value, expected, atol=1e-5)
    np.testing.assert_allclose(product, derivative, atol=1e-4)


@pytest.mark.parametrize('lengths', [None, [5, 2]])
@pytest.mark.parametrize(
    ('shape', 'kernel', 'options'),
    [
        ((2, 16, 5, 8), (3, 3, 8, 8), {}),
        ((2, 16, 5, 8), (3, 3, 8, 6), {}),
        ((2, 16, 5, 8), (5, 1, 8, 6), {'strides': (4, 1)}),
        ((2, 16, 5, 8), (3, 3, 8, 6), {'strides': (2, 2)}),
        ((2, 16, 5, 8), (1, 1, 8, 6), {}),
        ((2, 16, 5, 8), (5, 1, 8, 6), {'repeats': (4, 1)}),
        ((2, 16, 5, 8), (3, 3, 8, 6), {'repeats': (2, 2)}),
        ((2, 5, 8), (3, 8, 6), {}),
    ],
)
def test_both_kernels_give_the_same(in_strips, shape, kernel, options, lengths):
    lengths = None if lengths is None else jnp.array(lengths)
    arrays = random(*shape), random(*kernel, seed=1), random(8, seed=2), random(8, seed=3)

    def function(x, kernel, scale, bias, kernels):
        affine = ops.group_affine(x, scale, bias, lengths, kernels)
        return ops.convolve(x, kernel, affine, jax.nn.silu, lengths, **options, kernels=kernels)

    (value, pull_back), (expected, expected_pull_back) = (
        jax.vjp(functools.partial(function, kernels=kernels), *arrays) for kernels in ('cpu', 'xla')
    )
    np.testing.assert_allclose(value, expected, atol=1e-4)
    gradient = random(*value.shape, seed=4)
    for ours, theirs in zip(pull_back(gradient), expected_pull_back(gradient), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.max(np.abs(theirs)) + 1e-4)

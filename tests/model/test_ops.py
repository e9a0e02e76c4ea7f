"""The layers' operation, by XLA alone and with kernels for CPUs."""

import dataclasses
import functools
import importlib.util
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from m2l_jax.compilation.topologies import open_topology
from m2l_jax.interface.errors import InputError
from m2l_jax.model import ops
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.model.layers import attend
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
    ('platform', 'capability', 'kernels'),
    [
        ('cpu', None, 'cpu'),
        ('tpu', None, 'xla'),
        ('gpu', '9.0', 'gpu'),
        ('gpu', '10.3', 'gpu'),
        ('gpu', '7.5', 'xla'),
        ('gpu', 'gfx942', 'xla'),
    ],
)
def test_the_device_chooses(platform, capability, kernels):
    device = types.SimpleNamespace(platform=platform, compute_capability=capability)
    assert ops.kernels_for(device) == kernels


@pytest.mark.parametrize(
    ('platform', 'multiplies', 'dtype', 'expected'),
    [
        ('cpu', True, 'bfloat16', ('float32', 'cpu_bfloat16')),
        ('cpu', False, 'bfloat16', ('float32', 'cpu')),
        ('cpu', True, 'float16', ('float32', 'cpu')),
        ('cpu', True, 'float32', ('float32', 'cpu')),
        ('tpu', True, 'bfloat16', ('bfloat16', 'xla')),
    ],
)
def test_the_processor_chooses_products(
    monkeypatch, tiny_config, platform, multiplies, dtype, expected
):
    monkeypatch.setattr(ops, 'multiplies_bfloat16', lambda: multiplies)
    given = dataclasses.replace(tiny_config, dtype=dtype)
    config, kernels = ops.for_inference(given, types.SimpleNamespace(platform=platform))
    assert (config.dtype, kernels) == expected
    assert config.defining == tiny_config


def test_unknown_kernels_are_refused(tiny_config):
    known = 'xla, cpu, cpu_bfloat16, gpu'
    with pytest.raises(InputError, match=f"kernels='tpu' must be one of {known}"):
        Music2Latent(tiny_config, 'tpu').init_params(jax.random.key(0))


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


@pytest.mark.parametrize('kernels', ['cpu', 'gpu'])
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
def test_all_kernels_give_the_same(in_strips, shape, kernel, options, lengths, kernels):
    lengths = None if lengths is None else jnp.array(lengths)
    arrays = random(*shape), random(*kernel, seed=1), random(8, seed=2), random(8, seed=3)
    arrays = *arrays, random(2, 8, seed=5)

    def function(x, kernel, scale, bias, shift, kernels):
        own = {**options, 'shift': shift, 'kernels': kernels}
        return ops.convolve(x, kernel, (scale, bias), jax.nn.silu, lengths, **own)

    (value, pull_back), (expected, expected_pull_back) = (
        jax.vjp(functools.partial(function, kernels=kernels), *arrays)
        for kernels in (kernels, 'xla')
    )
    np.testing.assert_allclose(value, expected, atol=1e-4)
    gradient = random(*value.shape, seed=4)
    for ours, theirs in zip(pull_back(gradient), expected_pull_back(gradient), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.max(np.abs(theirs)) + 1e-4)


@pytest.mark.skipif(
    importlib.util.find_spec('jax_cuda13_plugin') is None,
    reason="the GPU's compiler is not installed: pip install -e '.[cuda]'",
)
def test_gradients_on_gpus_have_no_windows_as_large_as_the_input():
    """XLA takes some gradients of kernels for forward convolutions, which cuDNN computes slowly."""
    device = SingleDeviceSharding(open_topology('h100').devices[0])
    x, kernel = (
        jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=device)
        for shape in [(2, 64, 16, 32), (3, 3, 32, 16)]
    )

    def loss(x, kernel):
        return jnp.sum(ops.convolve(x, kernel, repeats=(2, 2), kernels='gpu').astype('float32'))

    text = jax.jit(jax.grad(loss, (0, 1))).lower(x, kernel).compile().as_text()
    windows = re.findall(r'custom-call\(.*window={size=(\d+)x(\d+).*__cudnn', text)
    assert windows
    assert max(int(size) for window in windows for size in window) == 2


def normalised(x, kernels):
    channels = x.shape[-1]
    return ops.normalise(x, (jnp.ones(channels), jnp.zeros(channels)), kernels=kernels)


@pytest.mark.parametrize('shape', [(2, 64, 8, 8), (2, 6, 8)])
def test_gpu_statistics_of_large_means(shape):
    """In one pass, the square of the mean takes no digits of the variance."""
    x = random(*shape) + jnp.array([1e4, -1e4]).reshape(2, *[1] * (len(shape) - 1))
    np.testing.assert_allclose(normalised(x, 'gpu'), normalised(x, 'xla'), atol=5e-3)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_gpu_statistics_of_a_constant_are_finite(dtype):
    x = jnp.full((2, 32, 4, 8), 300, dtype)
    value, pull_back = jax.vjp(lambda x: normalised(x, 'gpu'), x)
    np.testing.assert_allclose(value.astype('f'), 0, atol=0.2)
    assert np.all(np.isfinite(pull_back(jnp.ones_like(value))[0].astype('f')))


def test_gpu_norms_have_the_gradients_of_the_model(model, params):
    def loss(params, model):
        lengths, spectrogram = jnp.array([2, 1]), random(2, 1024, 16, 2)
        return jnp.sum(encode_and_denoise(model, params, spectrogram, SIGMA, lengths) ** 2)

    ours, expected = (
        jax.jit(jax.grad(functools.partial(loss, model=model.clone(kernels=kernels))))(params)
        for kernels in ('gpu', 'xla')
    )
    for one, other in zip(*map(jax.tree.leaves, (ours, expected)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4 * np.max(np.abs(other)) + 1e-6)


def attention_inputs(dtype):
    return [random(4, 16, 2, 32, seed=seed).astype(dtype) for seed in range(3)]


@pytest.mark.parametrize(('dtype', 'takes'), [('bfloat16', True), ('float32', False)])
def test_cudnn_attends_in_16_bits(dtype, takes):
    """In programs for GPUs; needs jax's CUDA plugin, which asks for cuDNN's version."""
    function = jax.jit(functools.partial(attend, kernels='gpu'))
    try:
        traced = function.trace(*attention_inputs(dtype))
    except RuntimeError as error:
        pytest.skip(str(error))
    assert ('fmha' in traced.lower(lowering_platforms=('cuda',)).as_text()) == takes


@pytest.mark.parametrize('shape', [(4, 16, 2, 4), (4, 16, 2, 12), (4, 15, 2, 8), (4, 16, 1, 136)])
def test_what_cudnn_does_not_take_is_computed_plainly(shape):
    arrays = [random(*shape, seed=seed).astype('bfloat16') for seed in range(3)]
    np.testing.assert_array_equal(attend(*arrays, kernels='gpu'), attend(*arrays))


@pytest.mark.skipif(jax.default_backend() != 'gpu', reason='cuDNN needs a GPU')
def test_cudnn_gives_the_values_of_the_plain_way():
    def loss(*arrays, kernels):
        return jnp.sum(attend(*arrays, kernels=kernels).astype('f') * random(4, 16, 2, 32, seed=7))

    arrays = attention_inputs('bfloat16')
    ours, expected = (
        jax.value_and_grad(functools.partial(loss, kernels=kernels), (0, 1, 2))(*arrays)
        for kernels in ('gpu', 'xla')
    )
    for one, other in zip(*map(jax.tree.leaves, (ours, expected)), strict=True):
        np.testing.assert_allclose(
            one.astype('f'), other.astype('f'), atol=0.02 * float(jnp.max(jnp.abs(other)))
        )

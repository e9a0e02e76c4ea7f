import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m2l_jax.model.layers import (
    Conv,
    Downsample,
    FrequencyAttention,
    GroupNorm,
    ResBlock,
    Upsample,
    attend,
)


def random(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def perturbed(params, scale=0.3):
    """Random values instead of the zeros and ones of initialisation, which hide mistakes."""
    generator = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: leaf + scale * generator.standard_normal(leaf.shape, leaf.dtype), params
    )


def to_float32(x):
    return np.asarray(x, np.float32)


@pytest.mark.parametrize(('channels', 'groups'), [(8, 2), (64, 16), (256, 32)])
def test_group_norm_equals_its_definition(channels, groups):
    x = 3 * random(2, 6, 5, channels) + 1
    scale, bias = random(channels, seed=1), random(channels, seed=2)
    normed = GroupNorm().apply({'params': {'scale': scale, 'bias': bias}}, x)
    grouped = np.asarray(x, np.float64).reshape(2, 6, 5, groups, -1)
    mean = grouped.mean(axis=(1, 2, 4), keepdims=True)
    variance = grouped.var(axis=(1, 2, 4), keepdims=True)
    expected = ((grouped - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape) * scale + bias
    np.testing.assert_allclose(normed, expected, atol=2e-6)


def test_group_norm_takes_its_statistics_in_float32():
    """A large offset leaves bfloat16 no digits for the variance."""
    x = (100 + random(1, 64, 64, 8)).astype(jnp.bfloat16)
    norm = GroupNorm(dtype='bfloat16')
    normed = norm.apply(norm.init(jax.random.key(0), x), x)
    assert normed.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.std(np.asarray(normed, np.float32)), 1, rtol=0.02)


def test_attention_equals_jax():
    query, key, value = random(3, 5, 16, 2, 8)
    expected = jax.nn.dot_product_attention(query, key, value)
    np.testing.assert_allclose(attend(query, key, value), expected, atol=1e-6)
    large = attend(1e4 * query, key, value)
    assert np.all(np.isfinite(large))


def test_attention_mixes_frequencies_and_never_frames():
    module = FrequencyAttention(2)
    x = random(2, 6, 4, 8)
    params = perturbed(module.init(jax.random.key(0), x))
    before, after = (module.apply(params, y) - y for y in (x, x.at[0, 3, 2].add(5.0)))
    touched = np.any(np.abs(after - before) > 1e-6, axis=-1)
    # The normalisation lets a frame touch its whole batch row a little; take its statistics away.
    assert not touched[1].any()
    assert touched[0, :, 2].all()


def test_blocks_are_the_identity_at_initialisation():
    x = random(2, 8, 8, 8)
    block = ResBlock(8, attention_heads=2)
    embedding = random(2, 6, seed=3)
    params = block.init(jax.random.key(0), x, embedding)
    np.testing.assert_allclose(block.apply(params, x, embedding), x)


def test_conditioning_shifts_a_block():
    x = random(2, 8, 8, 8)
    block = ResBlock(8)
    params = perturbed(block.init(jax.random.key(0), x, random(2, 6)))
    one, other = (block.apply(params, x, random(2, 6, seed=seed)) for seed in (3, 4))
    assert np.max(np.abs(one - other)) > 0.01


@pytest.mark.parametrize(
    ('module', 'channels_in', 'expected'),
    [
        (Downsample(6, (4, 1)), 4, (2, 4, 8, 6)),
        (Downsample(6, (2, 2)), 4, (2, 8, 4, 6)),
        (Upsample(6, (4, 1)), 4, (2, 64, 8, 6)),
        (Upsample(6, (2, 2)), 4, (2, 32, 16, 6)),
    ],
)
def test_resampling_shapes(module, channels_in, expected):
    x = random(2, 16, 8, channels_in)
    assert module.apply(module.init(jax.random.key(0), x), x).shape == expected


@pytest.mark.parametrize('kernels', ['xla', 'cpu', 'gpu'])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('lengths', [None, [8, 3]])
@pytest.mark.parametrize('factors', [(4, 1), (2, 2)])
def test_downsampling_of_what_is_normalised(in_strips, factors, lengths, dtype, kernels):
    lengths = None if lengths is None else jnp.array(lengths)
    x = random(2, 16, 8, 4).astype(dtype)
    options = {'dtype': dtype, 'kernels': kernels}
    norm, down = GroupNorm(**options), Downsample(6, factors, **options)
    params = perturbed((norm.init(jax.random.key(0), x), down.init(jax.random.key(1), x)))

    def in_one(params, x):
        own = norm.apply(params[0], x.shape[-1], method='norm')
        return down.apply(params[1], x, own, lengths)

    def apart(params, x):
        return down.apply(params[1], norm.apply(params[0], x, lengths))

    ours, expected = (jax.vjp(function, params, x) for function in (in_one, apart))
    tolerance = {'float32': 1e-5, 'bfloat16': 0.05}[dtype]
    np.testing.assert_allclose(*map(to_float32, (ours[0], expected[0])), atol=tolerance)
    gradient = random(*expected[0].shape, seed=5).astype(dtype)
    for one, other in zip(
        *map(jax.tree.leaves, (ours[1](gradient), expected[1](gradient))), strict=True
    ):
        scale = np.max(np.abs(to_float32(other)))
        np.testing.assert_allclose(to_float32(one), to_float32(other), atol=tolerance * scale)


def test_strided_convolution_pads_both_sides():
    """Kernel [1, 0, 0] at stride 2 reads the sample before each even one; the first is padding."""
    kernel = jnp.array([1.0, 0, 0]).reshape(3, 1, 1)
    layer = Conv(1, (3,), strides=(2,))
    output = layer.apply(
        {'params': {'kernel': kernel, 'bias': jnp.zeros(1)}}, jnp.arange(1.0, 9).reshape(1, 8, 1)
    )
    np.testing.assert_array_equal(output[0, :, 0], [0, 2, 4, 6])


def test_upsampling_repeats_the_nearest():
    kernel = jnp.zeros((5, 1, 1, 1)).at[2].set(1.0)  # passes the middle through
    x = jnp.arange(3.0).reshape(1, 3, 1, 1)
    module = Upsample(1, (4, 1))
    output = module.apply({'params': {'conv': {'kernel': kernel, 'bias': jnp.zeros(1)}}}, x)
    np.testing.assert_array_equal(output[0, :, 0, 0], np.repeat([0, 1, 2], 4))


def test_initialisation_is_uniform_by_fan_in_and_zero_where_marked():
    block = ResBlock(64, attention_heads=4)
    params = block.init(jax.random.key(0), random(1, 8, 8, 32), random(1, 100))['params']
    bound = 1 / np.sqrt(9 * 32)
    for leaf in params['conv_in'].values():
        assert 0.9 * bound < np.max(np.abs(leaf)) <= bound
    np.testing.assert_allclose(np.std(params['conv_in']['kernel']), bound / np.sqrt(3), rtol=0.02)
    xavier = np.sqrt(6 / (4 * 64))
    assert 0.95 * xavier < np.max(np.abs(params['attention']['qkv']['kernel'])) <= xavier
    assert not np.any(params['attention']['qkv']['bias'])
    for zero in (params['conv_out'], params['time_shift'], params['attention']['out']):
        assert not any(np.any(leaf) for leaf in zero.values())

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m2l_jax.audio.spectrogram import SpectrogramConfig, to_spectrogram
from m2l_jax.consistency.noise import NoiseLevels
from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.model.config import ModelConfig
from m2l_jax.model.unet import noise_embedding, preconditioning
from tests.conftest import make_music
from tests.model.test_layers import perturbed

FRAMES = 16


@pytest.fixture(scope='module')
def model(tiny_config):
    return Music2Latent(tiny_config)


@pytest.fixture(scope='module')
def params(tiny_params):
    return perturbed(tiny_params, 0.1)


@pytest.fixture(scope='module')
def spectrogram(model):
    config = model.config.spectrogram
    return to_spectrogram(jnp.asarray(make_music(1, channels=2)), config)[:, :, :FRAMES]


@functools.partial(jax.jit, static_argnums=(0, 2))
def apply(model, params, method, *inputs):
    return model.apply({'params': params}, *inputs, method=method)


@functools.partial(jax.jit, static_argnums=(0, 2))
def apply_and_capture(model, params, method, *inputs):
    return model.apply({'params': params}, *inputs, method=method, capture_intermediates=True)


def test_full_size_has_the_released_models_parameters():
    model = Music2Latent()
    shapes = jax.eval_shape(model.init_params, jax.random.key(0))
    count = {
        name: sum(leaf.size for leaf in jax.tree.leaves(part)) for name, part in shapes.items()
    }
    assert sum(count.values()) == 57_658_690
    assert set(count) == {'encoder', 'decoder', 'unet'}


def test_full_size_shapes():
    model = Music2Latent()
    variables = {'params': jax.eval_shape(model.init_params, jax.random.key(0))}
    crop = jax.ShapeDtypeStruct((3, 1024, 64, 2), jnp.float32)

    def shape(method, *inputs):
        outputs = jax.eval_shape(
            lambda v, *x: model.apply(v, *x, method=method), variables, *inputs
        )
        return jax.tree.map(lambda leaf: leaf.shape, outputs), outputs

    assert shape('features', crop)[0] == (3, 8, 8192)
    latents_shape, latents = shape('encode', crop)
    assert latents_shape == (3, 8, 64)
    pyramid_shape, pyramid = shape('pyramid', latents)
    assert pyramid_shape == (
        (3, 1024, 64, 64),
        (3, 256, 64, 128),
        (3, 128, 32, 256),
        (3, 64, 16, 256),
        (3, 32, 8, 256),
    )
    sigma = jax.ShapeDtypeStruct((3,), jnp.float32)
    assert shape('denoise', crop, sigma, pyramid)[0] == (3, 1024, 64, 2)


def test_denoise_at_sigma_min_returns_its_input_exactly(model, params, spectrogram):
    pyramid = apply(model, params, 'pyramid', apply(model, params, 'encode', spectrogram))
    noisy = spectrogram + jax.random.normal(jax.random.key(1), spectrogram.shape)
    at_minimum = apply(model, params, 'denoise', noisy, jnp.full(2, 0.002), pyramid)
    np.testing.assert_array_equal(at_minimum, noisy)
    above = apply(model, params, 'denoise', noisy, jnp.full(2, 1.0), pyramid)
    assert np.max(np.abs(above - noisy)) > 0.1


def test_preconditioning_equals_its_formulas():
    sigma = np.array([0.002, 0.5, 80.0])
    c_skip, c_out, c_in = preconditioning(jnp.asarray(sigma), NoiseLevels())
    np.testing.assert_allclose(c_skip, 0.25 / ((sigma - 0.002) ** 2 + 0.25), rtol=1e-5)
    np.testing.assert_allclose(c_out, 0.5 * (sigma - 0.002) / np.sqrt(sigma**2 + 0.25), rtol=1e-5)
    np.testing.assert_allclose(c_in, 1 / np.sqrt(sigma**2 + 0.25), rtol=1e-5)


def test_noise_embedding_equals_its_formula():
    embedding = noise_embedding(jnp.array([0.002, 80.0]), 256)
    angle = np.log(80.0) / 4 * 10_000 ** (-np.arange(128) / 127)
    np.testing.assert_allclose(embedding[1, :128], np.sin(angle), atol=1e-5)
    np.testing.assert_allclose(embedding[1, 128:], np.cos(angle), atol=1e-5)


def test_conditioning_reaches_the_output_at_every_level(model, params, spectrogram):
    latents = apply(model, params, 'encode', spectrogram)
    pyramid = apply(model, params, 'pyramid', latents)
    sigma = jnp.full(2, 80.0)
    before = apply(model, params, 'denoise', spectrogram, sigma, pyramid)
    for level in range(len(pyramid)):
        changed = [x + (number == level) for number, x in enumerate(pyramid)]
        after = apply(model, params, 'denoise', spectrogram, sigma, changed)
        assert np.max(np.abs(after - before)) > 1e-5, f'level {level}'


def test_batch_rows_are_independent(model, params, spectrogram):
    both = apply(model, params, 'encode', spectrogram)
    alone = apply(model, params, 'encode', spectrogram[1:])
    np.testing.assert_allclose(both[1:], alone, atol=1e-5)


def test_features_are_channel_major(model, params, spectrogram):
    """Index c·F + f, of the last normalisation's output."""
    features, captured = apply_and_capture(model, params, 'features', spectrogram)
    deepest = captured['intermediates']['encoder']['norms_3']['__call__'][0]  # [B, F, T, C]
    bins = model.config.deepest_bins
    assert features.shape == (2, FRAMES // 8, model.config.feature_channels)
    for channel, bin in ((0, 1), (1, 0), (5, 17)):
        np.testing.assert_array_equal(
            features[:, :, channel * bins + bin], deepest[:, bin, :, channel]
        )


def test_decoder_unflattens_frequency_major(model, tiny_params):
    """Index f·C + c; at initialisation the block after it is the identity."""
    latents = jax.random.normal(jax.random.key(1), (1, 2, 8))
    pyramid, captured = apply_and_capture(model, tiny_params, 'pyramid', latents)
    flat = captured['intermediates']['decoder']['bottleneck_out']['__call__'][0]
    channels = model.config.widths[-1]
    for bin, channel in ((0, 1), (1, 0), (17, 5)):
        np.testing.assert_allclose(
            pyramid[-1][:, bin, :, channel], flat[:, :, bin * channels + channel], atol=1e-6
        )


def test_latents_are_inside_the_unit_cube(model, params, spectrogram):
    latents = apply(model, params, 'encode', spectrogram)
    assert latents.shape == (2, FRAMES // 8, 8)
    assert np.max(np.abs(latents)) < 1


def test_gradients_are_finite_for_silence(model, params):
    silence = jnp.zeros((1, 4096 + 1536))

    def loss(params, waveform):
        spectrogram = to_spectrogram(waveform, model.config.spectrogram)
        sigma = jnp.full(1, 0.5)
        output = model.apply({'params': params}, spectrogram, spectrogram, sigma)
        return jnp.sum(output**2)

    for gradient in jax.tree.leaves(jax.jit(jax.grad(loss, argnums=(0, 1)))(params, silence)):
        assert np.all(np.isfinite(gradient))


def test_bfloat16_computes_in_bfloat16_and_returns_float32(tiny_config, params, spectrogram):
    half = Music2Latent(dataclasses.replace(tiny_config, dtype='bfloat16'))
    latents = apply(half, params, 'encode', spectrogram)
    pyramid = apply(half, params, 'pyramid', latents)
    assert latents.dtype == jnp.float32
    assert {level.dtype for level in pyramid} == {jnp.dtype('bfloat16')}
    exact = apply(Music2Latent(tiny_config), params, 'encode', spectrogram)
    assert 1e-5 < np.max(np.abs(latents - exact)) < 0.1


@pytest.mark.parametrize(
    'shape', [(1, 1024, 12, 2), (1, 512, 16, 2), (1024, 16, 2), (1, 1024, 16, 1)]
)
def test_a_wrong_shape_is_told(model, params, shape):
    with pytest.raises(InputError, match=r'must be \[batch, 1024, frames, 2\]'):
        model.apply({'params': params}, jnp.zeros(shape), method='encode')


@pytest.mark.parametrize(
    ('field', 'value', 'message'),
    [
        ('base_channels', 36, 'do not split into groups of 4 or into 32 groups'),
        ('bottleneck_channels', 2, 'do not split into groups'),
        ('unet_blocks', 0, 'model.unet_blocks=0 must be at least 1'),
        ('embedding_channels', 2, 'must be even and at least 4'),
        ('downsampling', ((3, 1),) * 4, 'has the factor 3'),
        ('attention', (True,), 'model.attention needs 5 entries'),
        ('dtype', 'float8', "model.dtype='float8' must be one of"),
        ('bottleneck', 'vq', "model.bottleneck='vq' must be one of tanh, fsq"),
        ('levels', 257, 'model.levels=257 must be from 2 to 256'),
        ('levels', 5, "model.levels=5 needs model.bottleneck='fsq': 'tanh' has no levels"),
        ('latent_scale', 0.0, 'model.latent_scale=0.0 must be above 0'),
        ('channels', 0, 'model.channels=0 must be at least 1'),
        ('attention_heads', 3, 'attention_heads=3'),
        ('spectrogram', SpectrogramConfig(window=1000, hop=250), 'does not divide the 500 bins'),
    ],
)
def test_a_wrong_config_is_told(field, value, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(ModelConfig(), **{field: value})


@pytest.mark.parametrize('kernels', ['xla', 'gpu', 'cpu', 'cpu in strips'])
def test_a_row_of_a_batch_is_the_row_alone(model, params, spectrogram, kernels, request):
    """Whatever follows its own frames; one row has none, as where a batch is filled up."""
    if kernels == 'cpu in strips':
        request.getfixturevalue('in_strips')
    model = model.clone(kernels=kernels[:3])
    rows = jnp.stack([spectrogram[0], spectrogram[1], spectrogram[0]])
    dirty = rows.at[1, :, 8:].set(100.0).at[2].set(-3.0)
    lengths = jnp.array([2, 1, 0])
    sigma = jnp.array([0.5, 3.0, 80.0])

    @jax.jit
    def run(params, spectrogram, sigma, lengths=None):
        bound = model.bind({'params': params})
        latents = bound.encode(spectrogram, lengths)
        pyramid = bound.pyramid(latents, lengths)
        denoised = bound.denoise(spectrogram + 0.3, sigma, pyramid, lengths)
        return (latents, bound.features(spectrogram, lengths), *pyramid, denoised)

    batched = run(params, dirty, sigma, lengths)
    assert all(np.all(np.isfinite(array)) for array in batched)
    for row, frames in ((0, 16), (1, 8)):
        alone = run(params, rows[row : row + 1, :, :frames], sigma[row : row + 1])
        for together, single in zip(batched, alone, strict=True):
            time = 1 if single.ndim == 3 else 2
            part = jax.lax.slice_in_dim(together[row : row + 1], 0, single.shape[time], axis=time)
            error = np.linalg.norm(part - single) / np.linalg.norm(single)
            assert -20 * np.log10(error) >= 100

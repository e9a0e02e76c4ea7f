"""Configs of ablations and of higher compressions: they train, encode and decode."""

import functools

import jax
import numpy as np
import pytest

from m2l_jax import EncoderDecoder
from m2l_jax.configs import ablations, compression, default, overfit, small
from m2l_jax.consistency.noise import DiscreteSchedule, UniformDensity
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.settings import build
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.model.config import ModelConfig
from m2l_jax.torch_weights.conversion import load_torch_model, save_torch_model
from m2l_jax.training.config import TrainingConfig
from m2l_jax.training.loop import train_and_evaluate
from tests.conftest import make_music

ABLATIONS = (
    'no_frequency_attention',
    'no_frequency_scaling',
    'no_cross_connections',
    'discrete_schedule',
    'uniform_density',
)
COMPRESSIONS = {'8192': 16, '16384': 32}  # spectrogram frames to a latent vector
TINY = {
    'base_channels': 4,
    'attention_heads': 2,
    'unet_blocks': 1,
    'bottleneck_channels': 8,
    'bottleneck_blocks': 1,
    'latent_channels': 4,
    'embedding_channels': 8,
    'dtype': 'float32',
    'spectrogram': {'window': 256, 'hop': 64},
}


def settings_of(config):
    config.data.path = 'music'
    return build(TrainingConfig, config)


def parameters(config):
    return _parameters(build(ModelConfig, config.model))


@functools.cache
def _parameters(config):
    model = Music2Latent(config)
    shapes = jax.eval_shape(model.init_params, jax.random.key(0))
    leaves, _ = jax.tree_util.tree_flatten_with_path(shapes)
    return {'/'.join(key.key for key in path): leaf.size for path, leaf in leaves}


def trained(config, music, workdir):
    """Trains a tiny model of the config's deepest levels for two steps and returns its codec."""
    model = config.model
    model.update(
        TINY,
        channel_multipliers=model.channel_multipliers[-2:],
        attention=model.attention[-2:],
        downsampling=model.downsampling[-1:],
    )
    frames = build(ModelConfig, config.model).time_downsampling
    config.data.update(path=str(music), batch_size=4, crop_frames=frames, workers=2)
    config.optimizer.warmup_steps = 1
    config.train.update(steps=2, log_every=1, checkpoint_every=2)
    state = train_and_evaluate(config, workdir)
    assert int(state.step) == 2
    assert int(state.skipped) == 0
    return EncoderDecoder(workdir)


def check_codec(codec, frames):
    rate = codec.config.spectrogram.sample_rate
    waveform = make_music(1.5, channels=2)
    latents = codec.encode(waveform)
    assert latents.shape[:2] == (2, 4)
    assert codec.samples_per_latent == 64 * frames
    assert latents.shape[2] == codec.latents_in(waveform.shape[1])
    assert latents.shape[2] == pytest.approx(1.5 * rate / codec.samples_per_latent, abs=2)
    decoded = codec.decode(latents)
    assert decoded.shape[0] == 2
    assert abs(decoded.shape[1] - waveform.shape[1]) <= 2 * codec.samples_per_latent
    assert np.all(np.isfinite(decoded))


@pytest.mark.parametrize('name', ABLATIONS)
def test_an_ablated_model_trains_encodes_and_decodes(name, music, tmp_path):
    codec = trained(ablations.get_config(name), music, tmp_path / 'run')
    check_codec(codec, 2)


@pytest.mark.parametrize(('name', 'frames'), COMPRESSIONS.items())
def test_a_model_of_a_higher_compression_encodes_and_decodes(name, frames):
    config = compression.get_config(name).model
    config.update(TINY)
    model = Music2Latent(build(ModelConfig, config))
    codec = EncoderDecoder.from_params(model, model.init_params(jax.random.key(0)))
    check_codec(codec, frames)
    waveform = make_music(2)
    whole = codec.encode(waveform, max_waveform_length=10**9)
    chunked = codec.encode(waveform, max_waveform_length=40 * codec.samples_per_latent)
    assert whole.shape == chunked.shape


def test_a_model_of_a_higher_compression_trains(music, tmp_path):
    codec = trained(compression.get_config('8192'), music, tmp_path / 'run')
    check_codec(codec, 2)


@pytest.mark.parametrize(
    ('name', 'gone'),
    [
        ('no_frequency_attention', ('attention',)),
        ('no_frequency_scaling', ('encoder/gain', 'unet/scale_in', 'unet/scale_out')),
        ('no_cross_connections', ('_cross_', 'cross_out')),
        ('discrete_schedule', ()),
        ('uniform_density', ()),
    ],
)
def test_what_is_removed_is_no_parameter(name, gone):
    base, ablated = (parameters(ablations.get_config(each)) for each in ('base', name))
    assert base == parameters(default.get_config())
    without = {path: size for path, size in base.items() if not any(each in path for each in gone)}
    entrance = {path: base[path] for path in base if 'down_cross_0_0' in path}
    assert ablated == without | (entrance if name == 'no_cross_connections' else {})


def test_the_recipes_of_discrete_schedule_and_uniform_density():
    base = settings_of(default.get_config()).consistency
    discrete = settings_of(ablations.get_config('discrete_schedule')).consistency
    assert discrete.schedule == DiscreteSchedule(10, 1000)
    assert discrete.density == base.density
    uniform = settings_of(ablations.get_config('uniform_density')).consistency
    assert uniform.density == UniformDensity()
    assert uniform.schedule == base.schedule
    of_small = settings_of(ablations.get_config('discrete_schedule,small')).consistency
    assert of_small.schedule == DiscreteSchedule(1, 32)


@pytest.mark.parametrize(('name', 'frames'), COMPRESSIONS.items())
def test_compressions(name, frames):
    settings = settings_of(compression.get_config(name))
    assert settings.model.samples_per_latent == int(name) == 512 * frames
    assert settings.model.latent_channels == 64
    assert settings_of(compression.get_config(f'{name},overfit')).data.crop_frames >= frames
    assert compression.get_config('4096') == default.get_config()


@pytest.mark.parametrize('module', [ablations, compression])
def test_other_recipes_are_changed_too(module):
    name = {ablations: 'base', compression: '4096'}[module]
    assert module.get_config(f'{name},small:20000') == small.get_config('20000')
    assert module.get_config(f'{name},overfit') == overfit.get_config()


@pytest.mark.parametrize('module', [ablations, compression])
def test_the_docstrings_tell_how_many_parameters_there_are(module):
    rows = [line.split('|') for line in module.__doc__.splitlines() if line.startswith('| `')]
    assert len(rows) == len(module._CHANGES)
    for row in rows:
        name = row[1].strip(' `')
        counted = sum(parameters(module.get_config(name)).values())
        assert f'{counted:,}' in [cell.strip() for cell in row], name


@pytest.mark.parametrize(
    ('module', 'argument', 'names'),
    [
        (ablations, 'no_bottleneck', 'base, no_frequency_attention, no_frequency_scaling'),
        (ablations, 'base,huge', ',default or ,small or ,overfit'),
        (compression, '2048', '4096, 8192, 16384'),
    ],
)
def test_an_unknown_name_is_refused_in_a_line_that_lists_all(module, argument, names):
    with pytest.raises(InputError) as error:
        module.get_config(argument)
    assert str(error.value).startswith(f'{argument!r} is not one of ')
    assert names in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', ['frequency_scaling', 'cross_connections'])
def test_ablated_models_are_not_written_for_the_pytorch_package(name, tiny_config, tmp_path):
    config = tiny_config.__class__(**{**vars(tiny_config), name: False})
    message = f'the PyTorch package has no model with model.{name}=False: write a folder instead'
    with pytest.raises(InputError, match=message):
        save_torch_model(tmp_path / 'model.pt', config, {})


def test_new_fields_are_recorded_only_where_they_are_set():
    assert not {'frequency_scaling', 'cross_connections'} & ModelConfig().record().keys()
    changed = ModelConfig(frequency_scaling=False, cross_connections=False)
    assert build(ModelConfig, changed.record()) == changed


def test_a_model_of_a_higher_compression_is_kept_in_pytorchs_format(tmp_path):
    config = compression.get_config('8192').model
    config.update(TINY, downsampling=((4, 1), *[(2, 2)] * 4))
    config = build(ModelConfig, config)
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(Music2Latent(config).init_params, jax.random.key(0))
    params = jax.tree.map(lambda leaf: random.standard_normal(leaf.shape, np.float32), shapes)
    save_torch_model(tmp_path / 'model.pt', config, params)
    model, loaded = load_torch_model(tmp_path / 'model.pt')
    assert model.config == config
    jax.tree.map(np.testing.assert_array_equal, loaded, params)

import dataclasses
import functools
import operator
import re

import jax
import pytest

from m2l_jax.configs import default, demo, gpu, overfit, small, stereo, tpu_v4, tpu_v5e, tpu_v6e
from m2l_jax.consistency import noise
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.settings import build
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.model.config import ModelConfig
from m2l_jax.training.config import TrainingConfig
from m2l_jax.training.state import OPTIMIZERS


@pytest.mark.parametrize('module', [default, demo, gpu, small, tpu_v4, tpu_v5e, tpu_v6e])
def test_configs_build(module):
    config = module.get_config()
    config.data.path = 'music'
    assert build(TrainingConfig, config).data.path == 'music'


def test_default_is_the_papers_recipe():
    config = default.get_config()
    config.data.path = 'music'
    settings = build(TrainingConfig, config)
    assert settings.model == ModelConfig(dtype='bfloat16')
    assert settings.crop_samples == 34_304
    assert settings.data.batch_size == 16
    assert settings.train.steps == 800_000
    assert settings.data.min_rms == 0.001
    assert dataclasses.asdict(settings.optimizer) == {
        'learning_rate': 1e-4,
        'final_learning_rate': 1e-6,
        'warmup_steps': 10_000,
        'b1': 0.9,
        'b2': 0.999,
        'ema_decay': 0.9999,
        'clip_norm': 0.0,
        'name': 'radam',
        'ema_profiles': (),
    }


def test_checkpoints_hold_later_fields_only_where_they_are_set():
    config = default.get_config()
    config.data.path = 'music'
    fields = build(TrainingConfig, config).record()
    later = {
        'freeze',
        'unquantised',
        'ema_profiles',
        'bottleneck',
        'levels',
        'stereo',
        'latents_of',
    }
    held = {
        name for section in (fields, *fields.values()) if type(section) is dict for name in section
    }
    assert not later & held
    assert build(TrainingConfig, fields) == build(TrainingConfig, config)
    config.init_from, config.freeze = 'small', 'encoder'
    config.optimizer.ema_profiles = (0.05, 0.1)
    fields = build(TrainingConfig, config).record(('0123',))
    assert (fields['freeze'], fields['model']['latents_of']) == ('encoder', ('0123',))
    assert fields['optimizer']['ema_profiles'] == (0.05, 0.1)


def test_choices_that_are_not_the_papers_are_named():
    def choices(config):
        config.data.path = 'music'
        return build(TrainingConfig, config).other_choices

    assert choices(default.get_config()) == {}
    assert choices(demo.get_config()) == {'init_from': 'small'}
    config = stereo.get_config()
    config.model.update(stereo='mid_side', bottleneck='fsq')
    config.optimizer.name, config.consistency.schedule.name = 'adamw', 'denoising'
    config.freeze = 'encoder'
    assert choices(config) == {
        'optimizer.name': 'adamw',
        'consistency.schedule.name': 'denoising',
        'model.bottleneck': 'fsq',
        'model.channels': 4,
        'model.stereo': 'mid_side',
        'freeze': 'encoder',
    }


def test_one_gpu_takes_the_papers_recipe():
    config = gpu.get_config()
    with config.unlocked():
        config.data.update(
            representation=default.get_config().data.representation,
            workers=default.get_config().data.workers,
        )
    assert config == default.get_config()


@pytest.mark.parametrize('module', [default, demo, overfit, small])
def test_the_docstring_tells_how_many_parameters_there_are(module):
    model = Music2Latent(build(ModelConfig, module.get_config().model))
    shapes = jax.eval_shape(model.init_params, jax.random.key(0))
    counted = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert re.search(r'([\d,]+) parameters', module.__doc__)[1] == f'{counted:,}'


def test_the_small_model_has_half_the_width_and_a_recipe_for_short_trainings():
    config = small.get_config('20000')
    assert (config.data.batch_size, config.data.crop_frames) == (16, 64)
    config.data.path = 'music'
    settings = build(TrainingConfig, config)
    assert settings.model.widths == (32, 64, 128, 128, 128)
    assert settings.model.dtype == 'bfloat16'
    assert settings.data.resident
    assert settings.train.steps == 20_000
    assert settings.optimizer.warmup_steps == 200
    assert settings.optimizer.ema_decay == pytest.approx(0.996)
    consistency = settings.consistency
    assert consistency.schedule.delta(0.0) == 1
    assert consistency.auxiliary.weight > 0
    assert consistency.least_weight == 1 / settings.model.noise.sigma_data


def test_the_demo_goes_on_from_the_small_model():
    config, recipe = demo.get_config(), small.get_config()
    recipe.data.path = config.data.path
    settings, trained = (build(TrainingConfig, each) for each in (config, recipe))
    assert settings.init_from == 'small'
    assert settings.model == dataclasses.replace(trained.model, dtype='float32')
    consistency = settings.consistency
    assert consistency.density == trained.consistency.density
    for progress in (0.0, 1.0):
        assert consistency.schedule.delta(progress) == trained.consistency.schedule.delta(1.0)
    assert consistency.auxiliary.weight == 0


@pytest.mark.parametrize(
    ('config', 'batch', 'steps', 'rate', 'warmup', 'ema_decay'),
    [
        (tpu_v4.get_config(), 32, 400_000, 1.41421e-4, 5_000, 0.9998),
        (tpu_v4.get_config('v4-32'), 128, 100_000, 2.82843e-4, 1_250, 0.9992),
        # From 256 crops on the steps stay as many.
        (tpu_v4.get_config('v4-64'), 256, 50_000, 4e-4, 625, 0.9984),
        (tpu_v4.get_config('v4-512'), 2_048, 50_000, 1.13137e-3, 625, 0.9984),
        (tpu_v5e.get_config('v5e-4'), 32, 400_000, 1.41421e-4, 5_000, 0.9998),
        (tpu_v5e.get_config('v5litepod-16'), 128, 100_000, 2.82843e-4, 1_250, 0.9992),
        (tpu_v6e.get_config('v6e-16'), 128, 100_000, 2.82843e-4, 1_250, 0.9992),
        (gpu.get_config('8'), 128, 100_000, 2.82843e-4, 1_250, 0.9992),
    ],
)
def test_larger_slices_scale_the_recipe(config, batch, steps, rate, warmup, ema_decay):
    assert (config.data.batch_size, config.train.steps) == (batch, steps)
    assert config.optimizer.learning_rate == pytest.approx(rate, rel=1e-5)
    assert config.optimizer.final_learning_rate == pytest.approx(rate / 100, rel=1e-5)
    assert config.optimizer.warmup_steps == warmup
    assert config.optimizer.ema_decay == pytest.approx(ema_decay, abs=1e-9)
    assert config.train.checkpoint_every == config.evaluation.every == warmup


@pytest.mark.parametrize(
    ('module', 'argument'),
    [
        (tpu_v4, 'v5e-4'),
        (tpu_v4, 'v4-7'),
        (tpu_v4, 'v4-0'),
        (tpu_v5e, 'v5e'),
        (gpu, '0'),
        (small, '999'),
    ],
)
def test_wrong_arguments_are_refused(module, argument):
    with pytest.raises(InputError, match=r'use e\.g\.'):
        module.get_config(argument)


@pytest.mark.parametrize(
    ('part', 'choices'),
    [
        ('consistency.density', noise.DENSITIES),
        ('consistency.schedule', noise.SCHEDULES),
        ('optimizer', OPTIMIZERS),
    ],
)
def test_choices_are_made_by_name(part, choices):
    *path, last = part.split('.')

    def choose(fields):
        config = default.get_config().to_dict()
        config['data']['path'] = 'music'
        functools.reduce(operator.getitem, path, config)[last] = fields
        return operator.attrgetter(part)(build(TrainingConfig, config))

    fields = operator.attrgetter(part)(default.get_config()).to_dict()
    for name, cls in choices.items():
        known = {field.name for field in dataclasses.fields(cls)}
        mine = {key: value for key, value in fields.items() if key in known}
        assert type(choose(mine | {'name': name})) is cls
    # Checkpoints of older versions have no names.
    old = {key: value for key, value in fields.items() if key != 'name'}
    assert choose(old) == choose(fields)
    with pytest.raises(InputError) as error:
        choose(old | {'name': 'other'})
    message = f"config.{part}.name='other' must be one of {', '.join(choices)}"
    assert str(error.value) == message

import dataclasses

import pytest

from configs import default, demo, tpu_v4
from m2l_jax.interface.settings import build
from m2l_jax.model.config import ModelConfig
from m2l_jax.training.config import TrainingConfig


@pytest.mark.parametrize('module', [default, demo, tpu_v4])
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
    }

"""Training of a model of both channels."""

import numpy as np
import pytest

from m2l_jax.checkpoint.store import load_model
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.configs import stereo
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.settings import build
from m2l_jax.training.config import TrainingConfig
from m2l_jax.training.curves import read_curves
from m2l_jax.training.loop import train_and_evaluate
from tests.conftest import make_music
from tests.small_training import make_config
from tests.training.runs import watched


def make_stereo(path, **data):
    config = make_config(path)
    with config.unlocked():
        config.model.update(base_channels=8, channels=4, stereo='mid_side')
        config.consistency.auxiliary.weight = 1.0
        config.train.update(steps=3, log_every=1)
        config.data.update(batch_size=4, **data)
        config.evaluation.update(path=str(path), every=3, clips=2, seconds=0.5, media_clips=0)
    return config


def test_a_model_learns_from_both_channels_of_stereo_and_mono_twice(music, tmp_path):
    """From waveforms, which the step makes planes of; evaluated, saved and loaded."""
    with watched() as steps:
        train_and_evaluate(make_stereo(music, representation='waveform'), tmp_path / 'run')
    assert all(steps[step]['loss'] > 0 and not steps[step]['skipped_updates'] for step in (1, 2, 3))
    assert np.isfinite(read_curves(tmp_path / 'run')['evaluation/lsd'][3])
    model, params = load_model(tmp_path / 'run')
    assert (model.config.channels, model.config.layout) == (4, 'mid_side')
    codec = EncoderDecoder.from_params(model, params)
    assert codec.reconstruct(make_music(0.2, channels=2)).shape == (2, 8820)


def test_the_auxiliary_loss_needs_a_channel_for_each_plane_and_magnitude(music):
    config = make_stereo(music)
    with config.unlocked():
        config.model.base_channels = 4
    with pytest.raises(InputError, match=r'base_channels=4 must be at least 6 for config\.consist'):
        build(TrainingConfig, config)


def test_the_stereo_recipe_has_four_planes():
    config = stereo.get_config('2000')
    config.data.path = 'music'
    settings = build(TrainingConfig, config)
    assert settings.model.layout == 'left_right'
    assert settings.train.steps == 2000

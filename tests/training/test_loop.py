import contextlib
import dataclasses
import logging
import os
import shutil
import signal

import jax
import numpy as np
import pytest
import soundfile
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from m2l_jax.checkpoint.store import CheckpointStore, load_model
from m2l_jax.data import resident
from m2l_jax.interface.errors import InputError, Interrupted
from m2l_jax.interface.settings import build
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.training import loop
from m2l_jax.training.config import TrainingConfig
from m2l_jax.training.curves import read_curves
from m2l_jax.training.loop import train_and_evaluate
from m2l_jax.training.monitor import Profiler
from m2l_jax.training.state import TrainState, make_optimizer
from tests.conftest import make_music
from tests.small_training import make_config
from tests.training.runs import assert_identical, first_state, killed_after, watched


@pytest.fixture
def config(corpus):
    return make_config(corpus)


def read_scalars(workdir):
    events = EventAccumulator(str(workdir))
    events.Reload()
    names = {'loss', 'gradient_norm', 'update_norm', 'learning_rate', 'delta', 'latent_std',
             'latents_saturated', 'steps_per_second', 'audio_hours_per_second'}  # fmt: skip
    return {name: {e.step: e.value for e in events.Scalars(name)} for name in names}


def test_training_resumes_to_the_last_bit(config, whole, tmp_path):
    """Killed between two checkpoints, and among broken files: the same parameters all the same."""
    with killed_after(5) as first:
        train_and_evaluate(config, tmp_path / 'parts')
    with watched() as second:
        resumed = train_and_evaluate(config, tmp_path / 'parts')
    assert list(first) == [1, 2, 3, 4, 5]
    assert list(second) == [4, 5, 6]
    assert first | second == whole.steps
    assert int(resumed.step) == 6
    assert_identical(resumed, whole.state)
    scalars = read_scalars(whole.workdir)
    assert all(set(points) == {2, 4, 6} for points in scalars.values())
    assert scalars['learning_rate'][2] > 0

    # What inference loads is the average of the last checkpoint.
    model, params = load_model(tmp_path / 'parts')
    assert model.config.latent_channels == 4
    assert_identical(params, whole.state.ema_params)
    assert_identical(load_model(tmp_path / 'parts' / 'checkpoints' / '6')[1], params)
    earlier = load_model(tmp_path / 'parts' / 'checkpoints' / '3')[1]
    assert any(
        np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (earlier, params)), strict=True)
    )
    # A finished training has nothing left to do.
    assert_identical(train_and_evaluate(config, tmp_path / 'parts'), whole.state)

    with config.unlocked():
        config.model.base_channels = 8
    message = r'parts holds a checkpoint of another model \(config\.model\.base_channels: 4 -> 8\)'
    with pytest.raises(InputError, match=message):
        train_and_evaluate(config, tmp_path / 'parts')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'seed': -1}, r'config\.seed=-1 must be at least 0 and below 2\^32'),
        ({'optimizer.ema_decay': 1.0}, r'ema_decay=1\.0 must be at least 0 and below 1'),
        ({'consistency.density.log_sigma_std': 0.0}, r'log_sigma_std=0\.0 must be above 0'),
        ({'data.path': ''}, r'config\.data\.path and config\.data\.mix are not set'),
        ({'data.path': '/nowhere'}, '/nowhere does not exist'),
        ({'data.batch_size': 6}, 'batch_size=6 is not divisible by 4 devices'),
        ({'data.crop_frames': 13}, r'crop_frames=13 must be a multiple of 2'),
        ({'data.crop_frames': 8000}, 'shorter than a crop'),
        ({'train.steps': 0}, r'config\.train\.steps=0 must be at least 1'),
        ({'train.accumulate': 3}, "accumulate=3 does not divide a device's 2 rows"),
        ({'train.best_metric': 'fad'}, "best_metric='fad' must be one of si_sdr, lsd, mr_stft"),
        ({'optimizer.clip_norm': -1.0}, r'clip_norm=-1\.0 must be at least 0'),
        ({'evaluation.path': '/nowhere'}, '/nowhere does not exist'),
        ({'optimizer.warmup_steps': 9}, r'warmup_steps=9 must be below config\.train\.steps=6'),
    ],
)
def test_a_wrong_config_is_told_before_the_first_step(config, tmp_path, change, message):
    with config.unlocked():
        config.update_from_flattened_dict(change)
    with pytest.raises(InputError, match=message):
        train_and_evaluate(config, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_a_diverged_training_is_told_and_never_saved(config, corpus, tmp_path, caplog):
    caplog.set_level(logging.INFO, 'm2l_jax')
    with config.unlocked():
        config.consistency.density.name = 'lognormal'
        config.optimizer.update(learning_rate=1e30, warmup_steps=0)
        config.train.stop_after_skipped = 2
    message = (
        r'2 updates in a row were skipped, up to step 2: not all of loss [\d.]+, '
        r'gradient_norm [\d.]+, update_norm (inf|nan) are finite \(sigma [\d.]+ to [\d.]+, '
        rf'batch from {corpus}/.*\): training has diverged; '
        r'start again with a lower config\.optimizer\.learning_rate, or set'
    )
    with pytest.raises(InputError, match=message):
        train_and_evaluate(config, tmp_path / 'run')
    assert (
        "choices by name other than the paper's: consistency.density.name=lognormal"
        in caplog.messages
    )
    assert not [each for each in caplog.messages if 'NaN or Inf' in each]  # TensorBoard's writer
    with pytest.raises(InputError, match='holds no complete checkpoint'):
        load_model(tmp_path / 'run')


def test_a_diverged_training_with_a_checkpoint_goes_on_from_it():
    assert loop._describe_way_on(40) == 'go on from the checkpoint of step 40'


def test_waveforms_train_as_spectrograms_do(config, whole, tmp_path):
    with config.unlocked():
        config.data.representation = 'waveform'
    with watched() as steps:
        train_and_evaluate(config, tmp_path)
    assert list(steps) == list(whole.steps)
    for step, metrics in steps.items():
        np.testing.assert_allclose(metrics['loss'], whole.steps[step]['loss'], rtol=1e-5)


def test_a_signal_saves_and_stops_and_training_goes_on(config, whole, tmp_path):
    """With clips held out, which change nothing."""
    with config.unlocked():
        config.evaluation.update(path=config.data.path, every=4, clips=1, seconds=1.0)

    def send(step):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    message = 'stopped and saved at step 2 of 6: run the same command'
    with watched(send), pytest.raises(Interrupted, match=message):
        train_and_evaluate(config, tmp_path / 'parts')
    assert (tmp_path / 'parts' / 'checkpoints' / '2').is_dir()
    # Nor does it do more than a step once there is no time left.
    with pytest.raises(Interrupted, match='stopped and saved at step 3 of 6'):
        train_and_evaluate(config, tmp_path / 'parts', minutes=0)
    assert_identical(train_and_evaluate(config, tmp_path / 'parts'), whole.state)

    assert list(read_curves(tmp_path / 'parts')['evaluation/si_sdr']) == [0, 4, 6]


def test_a_workdir_that_is_a_file_is_told(config, tmp_path):
    (tmp_path / 'run').touch()
    with pytest.raises(InputError, match='run cannot be made a folder'):
        train_and_evaluate(config, tmp_path / 'run')


def test_another_corpus_is_told_when_training_goes_on(corpus, whole, tmp_path, caplog):
    folder = shutil.copytree(corpus, tmp_path / 'music')
    workdir = shutil.copytree(whole.workdir, tmp_path / 'run')
    train_and_evaluate(make_config(folder), workdir)
    assert 'the audio is not what' not in caplog.text
    soundfile.write(folder / 'more.wav', make_music(1).T, 44_100)
    train_and_evaluate(make_config(folder), workdir)
    assert 'the audio is not what' in caplog.text


def test_a_resident_corpus_has_to_leave_room_for_the_state(corpus, tmp_path, monkeypatch):
    block = 2 * ((1 << 20) + 256 + 7 * 64 - 1)  # bytes, with what completes it: one a device
    monkeypatch.setattr(resident, '_free_memory', lambda mesh: block + 1000)
    with pytest.raises(InputError, match=r'GiB free and are to hold \S+ GiB of state too: use'):
        train_and_evaluate(make_config(corpus, resident=True), tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_a_checkpoint_of_trees_goes_on_to_the_last_bit(config, whole, tmp_path, monkeypatch):
    """As older versions wrote them: an optimiser's state of each array by itself."""
    settings = build(TrainingConfig, config)
    model = Music2Latent(settings.model)
    optimizer = make_optimizer(settings.optimizer, settings.train.steps)
    rng = np.random.default_rng(0)
    params = model.init_params(jax.random.key(0))
    state = TrainState(np.int32(3), np.int32(1), np.int32(0), params, None, optimizer.init(params))
    state = jax.tree.map(
        lambda leaf: rng.random(leaf.shape, leaf.dtype) if leaf.ndim else leaf, state
    )
    average = jax.tree.map(lambda leaf: rng.random(leaf.shape, leaf.dtype), params)
    with contextlib.closing(CheckpointStore(tmp_path)) as store:
        store.save(3, state, average, dataclasses.asdict(settings))
    for shard in (False, True):
        with config.unlocked():
            config.train.shard_optimizer = shard
        restored = first_state(config, tmp_path, monkeypatch)
        assert_identical(restored, state.replace(ema_params=average))

    with config.unlocked():
        config.optimizer.name = 'adamw'
    message = r'holds the state of config\.optimizer\.name=radam, not of adamw: choose another'
    with pytest.raises(InputError, match=message):
        train_and_evaluate(config, tmp_path)


@pytest.mark.parametrize('profile', ['x', '0', '5:4', '0:4'])
def test_a_wrong_profile_is_told(config, tmp_path, profile):
    with pytest.raises(InputError, match=f'^--profile={profile} '):
        train_and_evaluate(config, tmp_path / 'run', profile=profile)
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    ('profile', 'first_step', 'profiled'),
    [('', 0, []), ('2', 7, [18, 19]), ('3:4', 0, [3, 4]), ('3:4', 3, []), ('19:30', 0, [19, 20])],
)
def test_the_profile_is_of_the_steps_asked_for(
    tmp_path, monkeypatch, profile, first_step, profiled
):
    calls = []
    monkeypatch.setattr('jax.profiler.start_trace', lambda folder: calls.append(folder))
    monkeypatch.setattr('jax.profiler.stop_trace', lambda: calls.append('stop'))
    profiler, seen = Profiler(tmp_path, profile, first_step), []
    for step in range(first_step, 20):
        profiler.before_step(step)
        if len(calls) == 1:
            seen.append(step + 1)
        profiler.after_step(step + 1, {})
    profiler.close()
    assert seen == profiled
    assert calls == ([str(tmp_path), 'stop'] if profiled else [])


def test_a_profile_is_written(config, tmp_path):
    with config.unlocked():
        config.train.steps = 3
    train_and_evaluate(config, tmp_path, profile='3:3')
    assert list(tmp_path.glob('plugins/profile/*/*.xplane.pb'))

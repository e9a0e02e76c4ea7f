import os
import signal

import jax
import numpy as np
import pytest
import soundfile
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from m2l_jax.checkpoint.store import load_model
from m2l_jax.interface.errors import InputError, Interrupted
from m2l_jax.training.loop import train_and_evaluate
from m2l_jax.training.monitor import Monitor
from tests.conftest import make_music
from tests.small_training import make_config


@pytest.fixture
def config(music_folder):
    config = make_config(music_folder)
    with config.unlocked():
        config.data.batch_size = 4
    return config


def assert_identical(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


class Killed(Exception):
    pass


def read_scalars(workdir):
    events = EventAccumulator(str(workdir))
    events.Reload()
    names = {'loss', 'gradient_norm', 'update_norm', 'learning_rate', 'delta', 'latent_std',
             'latents_saturated', 'steps_per_second', 'audio_hours_per_second'}  # fmt: skip
    return {name: {e.step: e.value for e in events.Scalars(name)} for name in names}


def test_training_resumes_to_the_last_bit(config, tmp_path, monkeypatch, music_folder):
    """Killed between two checkpoints, and among broken files: the same parameters all the same."""
    (music_folder / 'text.wav').write_text('not audio')
    broken = make_music(3)
    broken[0, ::500] = np.nan
    soundfile.write(music_folder / 'nan.wav', broken.T, 44_100, subtype='FLOAT')

    steps = {}

    def record(run, die_at=None):
        """Notes the metrics of each step of a run, and ends it after the given one."""
        steps[run] = {}

        def after_step(self, step, metrics):
            write_metrics(self, step, metrics)
            steps[run][step] = {name: float(value) for name, value in metrics.items()}
            if step == die_at:
                raise Killed

        monkeypatch.setattr(Monitor, 'after_step', after_step)

    write_metrics = Monitor.after_step
    record('whole')
    whole = train_and_evaluate(config, tmp_path / 'whole')
    record('killed', die_at=5)
    with pytest.raises(Killed):
        train_and_evaluate(config, tmp_path / 'parts')
    record('resumed')
    resumed = train_and_evaluate(config, tmp_path / 'parts')
    assert list(steps['killed']) == [1, 2, 3, 4, 5]
    assert list(steps['resumed']) == [4, 5, 6]
    assert steps['killed'] | steps['resumed'] == steps['whole']
    assert int(whole.step) == 6
    assert_identical(whole, resumed)
    scalars = read_scalars(tmp_path / 'whole')
    assert all(set(points) == {2, 4, 6} for points in scalars.values())
    assert scalars['learning_rate'][2] > 0

    # What inference loads is the average of the last checkpoint.
    model, params = load_model(tmp_path / 'parts')
    assert model.config.latent_channels == 4
    assert_identical(params, whole.ema_params)
    assert_identical(load_model(tmp_path / 'parts' / 'checkpoints' / '6')[1], params)
    earlier = load_model(tmp_path / 'parts' / 'checkpoints' / '3')[1]
    assert any(
        np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (earlier, params)), strict=True)
    )
    # A finished training has nothing left to do.
    assert_identical(train_and_evaluate(config, tmp_path / 'parts'), whole)

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
        ({'train.accumulate': 3}, "accumulate=3 does not divide a device's 1 rows"),
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


def test_a_diverged_training_is_told_and_never_saved(config, tmp_path, music_folder):
    with config.unlocked():
        config.optimizer.update(learning_rate=1e30, warmup_steps=0)
        config.train.stop_after_skipped = 2
    message = (
        r'2 updates in a row were skipped, .* up to step 2 \(loss [\d.]+, sigma [\d.]+ to [\d.]+, '
        rf'batch from {music_folder}/.*\): training has diverged'
    )
    with pytest.raises(InputError, match=message):
        train_and_evaluate(config, tmp_path / 'run')
    with pytest.raises(InputError, match='holds no complete checkpoint'):
        load_model(tmp_path / 'run')


def test_waveforms_train_as_spectrograms_do(config, tmp_path):
    train_and_evaluate(config, tmp_path / 'spectrogram')
    with config.unlocked():
        config.data.representation = 'waveform'
    train_and_evaluate(config, tmp_path / 'waveform')
    first, second = (read_scalars(tmp_path / name) for name in ('spectrogram', 'waveform'))
    for step, point in first['loss'].items():
        np.testing.assert_allclose(point, second['loss'][step], rtol=1e-5)


def test_a_signal_saves_and_stops_and_training_goes_on(config, tmp_path, monkeypatch):
    """With the corpus on the devices and clips held out; signals come after step 2."""
    with config.unlocked():
        config.data.resident = True
        config.evaluation.update(path=config.data.path, every=3, clips=1, seconds=1.0)
    whole = train_and_evaluate(config, tmp_path / 'whole')
    after_step = Monitor.after_step

    def send(self, step, metrics):
        after_step(self, step, metrics)
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Monitor, 'after_step', send)
    with pytest.raises(Interrupted, match='stopped and saved at step 2 of 6: run the same command'):
        train_and_evaluate(config, tmp_path / 'parts')
    assert (tmp_path / 'parts' / 'checkpoints' / '2').is_dir()
    monkeypatch.setattr(Monitor, 'after_step', after_step)
    # Nor does it do more than a step once there is no time left.
    with pytest.raises(Interrupted, match='stopped and saved at step 3 of 6'):
        train_and_evaluate(config, tmp_path / 'parts', minutes=0)
    assert_identical(train_and_evaluate(config, tmp_path / 'parts'), whole)

    events = EventAccumulator(str(tmp_path / 'whole'))
    events.Reload()
    assert {event.step for event in events.Scalars('evaluation/si_sdr')} == {3, 6}


def test_a_workdir_that_is_a_file_is_told(config, tmp_path):
    (tmp_path / 'run').touch()
    with pytest.raises(InputError, match='run cannot be made a folder'):
        train_and_evaluate(config, tmp_path / 'run')


def test_another_corpus_is_told_when_training_goes_on(config, tmp_path, music_folder, caplog):
    train_and_evaluate(config, tmp_path / 'run')
    caplog.clear()
    train_and_evaluate(config, tmp_path / 'run')
    assert 'the audio is not what' not in caplog.text
    soundfile.write(music_folder / 'more.wav', make_music(1).T, 44_100)
    train_and_evaluate(config, tmp_path / 'run')
    assert 'the audio is not what' in caplog.text

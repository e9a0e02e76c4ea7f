import io
import logging
import resource
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
import soundfile
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from m2l_jax.evaluation.held_out import ClipMedia, Evaluation
from m2l_jax.training import monitor as monitors
from m2l_jax.training.monitor import Monitor
from tests.conftest import make_music

RATE = 8000


def make_evaluation(gain: float, seconds: float = 0.0) -> Evaluation:
    """An evaluation of a mono, a stereo and a three-channel clip."""
    media = [
        ClipMedia(
            f'{channels}_clip',
            make_music(0.25, RATE, channels),
            gain * make_music(0.25, RATE, channels),
            np.full((4, 6, 3), [250, 100 * gain, 5], np.uint8),
        )
        for channels in (1, 2, 3)
    ]
    names = ('si_sdr', 'lsd', 'mr_stft', 'loss', 'latent_gain', 'mel', 'loss_sigma_0.0081')
    scalars = {f'evaluation/{name}': gain + number for number, name in enumerate(names)}
    return Evaluation(scalars, media, RATE, seconds)


def read_events(workdir) -> EventAccumulator:
    return EventAccumulator(str(workdir), {'audio': 0, 'images': 0, 'scalars': 0}).Reload()


def test_an_evaluation_is_read_back_as_it_was_written(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    monitor = Monitor(tmp_path, 0, 20, 10, 1.0)
    monitor.write_evaluation(10, make_evaluation(0.5))
    monitor.write_evaluation(20, make_evaluation(1.0))
    monitor.close()
    assert caplog.messages[0] == (
        'step 10/20, held-out clips: '
        'SI-SDR 0.50 dB, log-spectral distance 1.50 dB, multi-resolution STFT distance 2.500, '
        'mel distance 5.500, loss 3.5, latent gain 4.5000 (0.0 s)'
    )

    events = read_events(tmp_path)
    figures = [(event.step, event.value) for event in events.Scalars('evaluation/lsd')]
    assert figures == [(10, 1.5), (20, 2.0)]
    assert 'evaluation/loss_sigma_0.0081' in events.Tags()['scalars']

    for channels in (1, 2, 3):
        tag = f'evaluation/{channels}_clip'
        original = make_music(0.25, RATE, channels)
        heard = original if channels < 3 else original.mean(axis=0, keepdims=True)
        assert [event.step for event in events.Audio(f'{tag}/original')] == [10]  # once
        first, second = events.Audio(f'{tag}/reconstruction')
        assert (first.step, second.step) == (10, 20)
        for event, gain in ((first, 0.5), (second, 1.0)):
            waveform, rate = soundfile.read(io.BytesIO(event.encoded_audio_string), always_2d=True)
            assert rate == RATE
            np.testing.assert_allclose(waveform.T, gain * heard, atol=2**-15)
        picture, _ = events.Images(tag)
        pixels = matplotlib.image.imread(io.BytesIO(picture.encoded_image_string), format='png')
        np.testing.assert_allclose(pixels * 255, np.full((4, 6, 3), [250, 50, 5]))


def test_an_evaluation_does_not_count_as_slow_training(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr(monitors.time, 'monotonic', lambda: now)
    monitor = Monitor(tmp_path, 0, 20, 10, 1.0)
    for step in range(1, 11):
        monitor.after_step(step, {'loss': np.float32(1)})
    now += 5 + 60  # five seconds of training, a minute of evaluation
    monitor.write_evaluation(10, make_evaluation(1.0, seconds=60.0))
    monitor.close()
    (event,) = read_events(tmp_path).Scalars('steps_per_second')
    assert event.value == pytest.approx(9 / 5)  # the first step is not timed


def test_the_first_step_which_compiles_has_no_part_in_the_speed(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, 'm2l_jax')
    now = 100.0
    monkeypatch.setattr(monitors.time, 'monotonic', lambda: now)
    monitor = Monitor(tmp_path, 4, 10, 1, 36.0)
    for step in range(5, 9):
        monitor.after_step(step, {'loss': np.float32(step)})
        now += 2 if step > 5 else 600
    monitor.close()
    assert caplog.messages == [
        'step 5/10: loss 5',
        'step 6/10: loss 6, 0.005 audio-hours/s, 0.5 steps/s, 00:08 left',
        'step 7/10: loss 7, 0.005 audio-hours/s, 0.5 steps/s, 00:06 left',
        'step 8/10: loss 8, 0.005 audio-hours/s, 0.5 steps/s, 00:04 left',
    ]
    speeds = read_events(tmp_path).Scalars('steps_per_second')
    assert [(event.step, event.value) for event in speeds] == [(6, 0.5), (7, 0.5), (8, 0.5)]


def test_a_run_resumed_in_the_same_second_overwrites_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr('tensorboardX.event_file_writer.time.time', lambda: 1_700_000_000.0)
    for first in (0, 10):
        monitor = Monitor(tmp_path, first, 20, 10, 1.0)
        monitor.after_step(first + 10, {'loss': np.float32(first)})
        monitor.close()
    assert len(list(tmp_path.glob('events.*'))) == 2


def test_only_process_0_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(monitors.jax, 'process_index', lambda: 1)
    monitor = Monitor(tmp_path, 0, 20, 10, 1.0)
    monitor.after_step(10, {'loss': np.float32(1)})
    monitor.write_evaluation(10, make_evaluation(1.0))
    monitor.close()
    assert not list(tmp_path.iterdir())


def test_writes_where_tensorflow_is_not_installed(tmp_path):
    """As on an accelerator's host with an environment of its own."""
    script = f"""
import sys

class Hidden:
    def find_spec(name, path=None, target=None):
        if name.partition('.')[0] == 'tensorflow':
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hidden)
import numpy as np
from m2l_jax.training.monitor import Monitor
monitor = Monitor({str(tmp_path)!r}, 0, 1, 1, 1.0)
monitor.after_step(1, {{'loss': np.float32(7)}})
monitor.close()
assert 'tensorflow' not in sys.modules
"""
    subprocess.run([sys.executable, '-c', script], check=True)
    assert read_events(tmp_path).Scalars('loss')[0].value == 7


def test_a_full_disk_ends_the_curves_and_not_the_training(tmp_path, caplog):
    monitor = Monitor(tmp_path, 0, 2000, 1, 1.0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        for step in range(1, 500):
            monitor.after_step(step, {'loss': np.float32(1)})
        monitor.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    warnings = [message for message in caplog.messages if 'curves' in message]
    assert warnings == [
        f'curves for TensorBoard end here: {tmp_path} cannot be written (File too large)'
    ]

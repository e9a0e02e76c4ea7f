import dataclasses
import logging
import pathlib

import jax
import numpy as np
import pytest
import soundfile

from benchmarks import small_model
from m2l_jax.codec import weights
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.evaluation import noise_bins
from m2l_jax.evaluation.clips import cut_clips
from m2l_jax.evaluation.held_out import EvaluationConfig, HeldOutClips
from m2l_jax.evaluation.metrics import describe, mean_figures
from m2l_jax.evaluation.quality import describe_report, evaluate, measure_noise_levels
from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.torch_weights.conversion import save_torch_model
from tests.conftest import make_music


def test_files_are_cut_into_pieces_without_silence(tmp_path):
    music = make_music(1.3, channels=2)
    music[:, 22_050:44_100] = 0
    soundfile.write(tmp_path / 'b.wav', music.T, 44_100, subtype='FLOAT')
    soundfile.write(tmp_path / 'a.wav', make_music(0.5, seed=1).T, 44_100, subtype='FLOAT')
    clips, _, _ = cut_clips(str(tmp_path), 44_100, 0.25)
    assert [clip.name for clip in clips] == [
        '00_a_00',
        '00_a_01',
        '01_b_00',
        '01_b_01',
        '01_b_04',
    ]
    np.testing.assert_array_equal(clips[3].waveform, music[:, 11_025:22_050])


def test_formats_that_are_not_read_are_counted(tmp_path):
    (tmp_path / 'b.m4a').touch()
    with pytest.raises(InputError, match=r'nothing to evaluate \(files left out'):
        cut_clips(str(tmp_path), 44_100, 0.25)
    soundfile.write(tmp_path / 'a.wav', make_music(0.5).T, 44_100)
    clips, left_out, _ = cut_clips(str(tmp_path), 44_100, 0.25)
    assert (len(clips), left_out.names) == (2, [f'{tmp_path}/b.m4a'])


def test_files_without_a_clip_are_reported_and_the_others_taken(tmp_path):
    soundfile.write(tmp_path / 'good.wav', make_music(0.5).T, 44_100)
    soundfile.write(tmp_path / 'brief.wav', make_music(0.2).T, 44_100)
    soundfile.write(tmp_path / 'loud.wav', make_music(0.5).T * 40_000, 44_100, subtype='FLOAT')
    (tmp_path / 'broken.wav').write_text('no audio')
    (tmp_path / 'gone.wav').symlink_to(tmp_path / 'nowhere')
    clips, _, skipped = cut_clips(str(tmp_path), 44_100, 0.25)
    assert [clip.name[3:] for clip in clips] == ['good_00', 'good_01']
    reasons = {pathlib.Path(path).name: reason for path, reason in skipped.items()}
    assert list(reasons) == ['brief.wav', 'broken.wav', 'gone.wav', 'loud.wav']
    assert reasons['brief.wav'].endswith('brief.wav has no 0.25 s that are not silent')
    assert 'loud.wav is too loud: peak ' in reasons['loud.wav']


def test_files_of_the_same_name_are_distinguished(tmp_path):
    for name in ('a.wav', 'a.flac'):
        soundfile.write(tmp_path / name, make_music(0.3).T, 44_100)
    names = [clip.name for clip in cut_clips(str(tmp_path), 44_100, 0.25)[0]]
    assert names == ['00_a_00', '01_a_00']


@pytest.mark.parametrize(
    ('waveform', 'seconds', 'message'),
    [
        (np.zeros(44_100), 0.5, r'nothing to evaluate: .*a\.wav has no 0\.5 s that are not silent'),
        (np.ones(44_100), 2.0, r'nothing to evaluate: .*a\.wav has no 2\.0 s that are not silent'),
        (np.full(44_100, np.nan), 0.5, r'a\.wav holds NaN or infinite samples'),
        (np.full(44_100, 1e30), 0.5, r'a\.wav is too loud: peak 1e\+30 of full scale 1'),
        (np.ones(44_100), 0.0, r'pieces of 0\.0 s are too short to measure: 0\.046 at least'),
    ],
)
def test_what_cannot_be_measured_is_refused(tmp_path, waveform, seconds, message):
    soundfile.write(tmp_path / 'a.wav', waveform, 44_100, subtype='FLOAT')
    with pytest.raises(InputError, match=message):
        cut_clips(str(tmp_path / 'a.wav'), 44_100, seconds)


def test_the_mean_is_that_of_the_clips():
    assert mean_figures([{'lsd': 1.0, 'si_sdr': -2.0}, {'lsd': 2.0, 'si_sdr': 0.0}]) == {
        'lsd': 1.5,
        'si_sdr': -1.0,
    }


def test_noise_levels_are_measured_on_the_crops_of_held_out_evaluation(tmp_path, monkeypatch):
    """Clips that are as long as a training crop, one mono and one stereo."""
    samples = small_model.CONFIG.spectrogram.samples(16)
    for channels in (1, 2):
        music = make_music(samples / 44_100 + 1e-4, channels=channels, seed=channels)
        soundfile.write(tmp_path / f'{channels}.wav', music.T, 44_100, subtype='FLOAT')
    codec = EncoderDecoder.from_params(
        Music2Latent(small_model.CONFIG), small_model.random_params()
    )
    measured = []

    def measure(params, crops, after_bin):
        measured.append(crops)
        ones, rising = np.ones(8), np.arange(1.0, 9)
        return noise_bins.BinFigures(ones, 2 * ones, 2 * rising, 6 * ones, ones, rising, 0.3, 0.1)

    monkeypatch.setattr(noise_bins, 'make_measure', lambda *_: measure)
    clips, _, _ = cut_clips(str(tmp_path), 44_100, samples / 44_100)
    assert [len(clip.waveform) for clip in clips] == [1, 2]
    figures = measure_noise_levels(codec, clips)
    config = EvaluationConfig(str(tmp_path), 1, 2, samples / 44_100, 0, 1)
    held_out = HeldOutClips(config, Music2Latent(small_model.CONFIG), 16, 0.00054)
    np.testing.assert_array_equal(measured[0], held_out._crops)

    levels = ('0.0081', '0.071', '0.37', '1.4', '4.3', '11', '26', '56')
    assert [figures[f'latent_gain_sigma_{level}'] for level in levels] == list(range(1, 9))
    assert (figures['latent_gain'], figures['latent_gain_over_mean']) == (6, 3)  # σ = 11
    assert (figures['loss'], figures['error'], figures['latent_std']) == (1, 2, 0.3)


def test_another_model_is_measured_in_the_same_way(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    model, released = tmp_path / 'model.safetensors', tmp_path / 'released.safetensors'
    params = small_model.random_params()
    save_torch_model(model, small_model.CONFIG, params)
    save_torch_model(released, small_model.CONFIG, jax.tree.map(lambda leaf: 1.5 * leaf, params))
    monkeypatch.setattr(weights, 'fetch_released', lambda: released)
    soundfile.write(tmp_path / 'a.wav', make_music(0.5).T, 44_100)
    inputs, output = str(tmp_path / 'a.wav'), tmp_path / 'out'
    report = evaluate(str(model), inputs, output, seconds=0.25, media=0, against='released')
    alone = evaluate(str(released), inputs, output, seconds=0.25, media=0)
    against = report['against']
    assert (against['checkpoint'], against['model']) == ('released', alone['model'])
    assert against['mean'] == alone['mean'] != report['mean']
    assert against['by_noise_level'] == alone['by_noise_level'] != report['by_noise_level']
    described = describe_report(report).splitlines()
    rows = {line.partition(': ')[0].strip(): line.partition(': ')[2] for line in described[1:]}
    assert rows['released'] == describe(alone['mean']) != rows['model'] == describe(report['mean'])
    assert rows['released, latents'].startswith(
        f'gain {alone["by_noise_level"]["latent_gain"]:.3f}'
    )
    assert 'against' not in alone
    assert [message for message in caplog.messages if message.startswith('measuring')][:5] == [
        'measuring 2 pieces with the model',
        'measuring 2 pieces with the untrained model',
        'measuring errors at 8 noise levels',
        'measuring 2 pieces with released',
        'measuring errors at 8 noise levels',
    ]


def test_models_of_other_rates_are_not_compared(tmp_path):
    slow = dataclasses.replace(
        small_model.CONFIG,
        spectrogram=dataclasses.replace(small_model.CONFIG.spectrogram, sample_rate=22_050),
    )
    paths = tmp_path / 'model.safetensors', tmp_path / 'slow.safetensors'
    for path, config in zip(paths, (small_model.CONFIG, slow), strict=True):
        save_torch_model(path, config, small_model.random_params())
    message = r'--against=.*slow\.safetensors is a model of 22050 Hz, --checkpoint one of 44100 Hz'
    with pytest.raises(InputError, match=message):
        evaluate(str(paths[0]), 'a.wav', tmp_path / 'out', against=str(paths[1]))
    assert not (tmp_path / 'out').exists()


def test_noise_levels_of_clips_shorter_than_a_latent_vector_are_measured(tmp_path):
    soundfile.write(tmp_path / 'a.wav', make_music(0.3).T, 44_100)
    codec = EncoderDecoder.from_params(
        Music2Latent(small_model.CONFIG), small_model.random_params()
    )
    clips, _, _ = cut_clips(str(tmp_path), 44_100, 0.05)
    assert np.all(np.isfinite(list(measure_noise_levels(codec, clips).values())))

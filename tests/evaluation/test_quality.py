import csv
import dataclasses
import json
import logging
import pathlib

import numpy as np
import pytest
import soundfile

from benchmarks import small_model
from m2l_jax.codec import weights
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.evaluation import noise_bins
from m2l_jax.evaluation.clips import cut_clips
from m2l_jax.evaluation.held_out import EvaluationConfig, HeldOutClips
from m2l_jax.evaluation.metrics import ALL_METRICS
from m2l_jax.evaluation.quality import evaluate, measure_noise_levels
from m2l_jax.evaluation.reporting.table import describe_report
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
    assert reasons['brief.wav'].endswith(' has no 0.25 s that are not silent: it has 0.2 s')
    assert 'loud.wav is too loud: peak ' in reasons['loud.wav']


def test_files_of_the_same_name_are_distinguished(tmp_path):
    for name in ('a.wav', 'a.flac'):
        soundfile.write(tmp_path / name, make_music(0.3).T, 44_100)
    names = [clip.name for clip in cut_clips(str(tmp_path), 44_100, 0.25)[0]]
    assert names == ['00_a_00', '01_a_00']


def test_long_names_are_cut_at_a_letter(tmp_path):
    soundfile.write(tmp_path / f'{"あ" * 80}.wav', make_music(0.6).T, 44_100)
    names = [clip.name for clip in cut_clips(str(tmp_path), 44_100, 0.25)[0]]
    assert names == [f'00_{"あ" * 49}_{number:02}' for number in range(2)]


@pytest.mark.parametrize(
    ('waveform', 'seconds', 'message'),
    [
        (np.zeros(44_100), 0.5, r'nothing to evaluate: .*a\.wav has no 0\.5 s that are not silent'),
        (np.ones(44_100), 2.0, r'nothing to evaluate: .*a\.wav has no 2 s that are not silent'),
        (np.full(44_100, np.nan), 0.5, r'a\.wav holds NaN or infinite samples'),
        (np.full(44_100, 1e30), 0.5, r'a\.wav is too loud: peak 1e\+30 of full scale 1'),
        (np.ones(44_100), 0.0, r'pieces of 0\.0 s are too short to measure: 0\.046 at least'),
    ],
)
def test_what_cannot_be_measured_is_refused(tmp_path, waveform, seconds, message):
    soundfile.write(tmp_path / 'a.wav', waveform, 44_100, subtype='FLOAT')
    with pytest.raises(InputError, match=message):
        cut_clips(str(tmp_path / 'a.wav'), 44_100, seconds)


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


def test_models_are_measured_in_the_same_way(models, tmp_path, monkeypatch, caplog, without_levels):
    caplog.set_level(logging.INFO)
    first, second = str(models / 'a.safetensors'), str(models / 'b.safetensors')
    monkeypatch.setattr(weights, 'fetch_released', lambda: pathlib.Path(second))
    options = {'seconds': 0.25, 'media': 1, 'webmushra': True, 'processes': 0, 'embeddings': []}
    inputs = str(models / 'a.wav')
    report = evaluate(first, inputs, tmp_path / 'a', against=['released', second], **options)
    alone = evaluate(second, inputs, tmp_path / 'b', **options)['systems'][second]
    systems = report['systems']
    assert list(systems) == [first, 'released', second, 'untrained', 'shaped noise']
    del alone['times_real_time']
    for name in ('released', second):
        np.testing.assert_equal({key: systems[name][key] for key in alone}, alone)  # nan too
    assert systems[first]['mean'] != alone['mean']
    assert alone['kilobits_a_second'] == 16 * 8 * 44.1 / 1024
    assert [message for message in caplog.messages if message.startswith('measuring')][:4] == [
        f'measuring 3 pieces with {first}',
        'measuring 3 pieces with released',
        f'measuring 3 pieces with {second}',
        'measuring 3 pieces with untrained',
    ]
    assert {path.name for path in (tmp_path / 'a').iterdir()} == {
        'report.json', 'clips.csv', 'index.html', 'webmushra',
        '00_a_00.wav', '00_a_00.original.wav', '00_a_00.png',
        '00_a_00.released.wav', '00_a_00.b.safetensors.wav',
    }  # fmt: skip
    heard = [
        soundfile.read(tmp_path / folder / f'00_a_00{ending}.wav')[0]
        for folder, ending in (('a', '.released'), ('a', '.b.safetensors'), ('b', ''))
    ]
    np.testing.assert_array_equal(heard[:2], [heard[2]] * 2)

    page = (tmp_path / 'a' / 'index.html').read_text()
    assert page.count('id="sound-0-') == 4  # the original, and three models'
    assert page.count('<td>shaped noise</td>') == 1 + 3
    tests = [*(tmp_path / 'a' / 'webmushra' / 'configs').glob('*.yaml')]
    assert len(tests) == 1

    lines = describe_report(report).splitlines()
    figure, (low, high) = alone['mean']['mel'], alone['interval']['mel']
    row = next(line for line in lines if line.startswith('mel distance (lower)'))
    assert row.count(f'{figure:.3f} [{low:.3f}, {high:.3f}]') == 2
    assert f'{alone["by_noise_level"]["latent_gain"]:.4g}' in next(
        line for line in lines if line.startswith('latent gain')
    )

    with open(tmp_path / 'a' / 'clips.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 3
    mels = [float(row['mel']) for row in rows if row['system'] == second]
    assert mels == [figures['mel'] for figures in alone['clips'].values()]
    assert np.mean(mels) == pytest.approx(figure)
    assert low < figure < high


def test_figures_of_several_seeds_are_their_means(models, tmp_path):
    model, inputs = str(models / 'a.safetensors'), str(models / 'a.wav')
    options = {'seconds': 0.25, 'media': 0, 'processes': 0, 'embeddings': []}
    options['latent_gain'] = False
    both = evaluate(model, inputs, tmp_path / 'both', seed=3, seeds=2, **options)
    assert 'by_noise_level' not in both['systems'][model]
    assert 'latent gain' not in describe_report(both)
    apart = [evaluate(model, inputs, tmp_path / str(seed), seed=seed, **options) for seed in (3, 4)]
    assert both['seeds'] == [3, 4]
    means = [report['systems'][model]['mean']['lsd'] for report in apart]
    assert both['systems'][model]['mean']['lsd'] == pytest.approx(np.mean(means))
    assert both['systems'][model]['seed_spread']['lsd'] == pytest.approx(np.std(means))
    assert apart[0]['systems'][model]['seed_spread']['lsd'] == 0


def test_what_is_not_finite_is_counted(monkeypatch, models, tmp_path, without_levels):
    silent = iter([np.nan, 2.0, 4.0] * 9)
    metric = dataclasses.replace(ALL_METRICS['snr'], function=lambda *_: next(silent))
    monkeypatch.setitem(ALL_METRICS, 'snr', metric)
    model = str(models / 'a.safetensors')
    report = evaluate(
        model,
        str(models / 'a.wav'),
        tmp_path / 'out',
        seconds=0.25,
        media=0,
        processes=0,
        embeddings=[],
    )
    system = report['systems'][model]
    assert (system['mean']['snr'], system['counted']['snr']) == (3, 2)
    lines = describe_report(report).splitlines()
    row = next(line for line in lines if line.startswith('SNR, dB (higher)'))
    assert '3.00 [2.00, 4.00] of 2' in row
    with open(tmp_path / 'out' / 'clips.csv', newline='') as file:
        assert [row['snr'] for row in csv.DictReader(file)][:3] == ['', '2.0', '4.0']
    stored = json.loads((tmp_path / 'out' / 'report.json').read_text())
    assert stored['systems'][model]['clips']['00_a_00']['snr'] is None


def test_a_figure_that_is_missing_is_a_dash_with_its_reason(
    monkeypatch, models, tmp_path, without_levels
):
    metric = dataclasses.replace(ALL_METRICS['snr'], function=lambda *_: np.nan)
    monkeypatch.setitem(ALL_METRICS, 'snr', metric)
    options = {'seconds': 0.7, 'media': 0, 'processes': 0, 'embeddings': ['encoder']}
    model = str(models / 'a.safetensors')
    report = evaluate(model, str(models / 'a.wav'), tmp_path / 'out', **options)
    assert len(report['systems'][model]['clips']) == 1
    table = describe_report(report)
    assert 'nan' not in table
    rows = {line.split('  ')[0]: line for line in table.splitlines()}
    assert rows['SNR, dB (higher)'].count('–') == 3
    assert '[' not in rows['mel distance (lower)']  # one piece has no interval
    assert '–: SNR takes sound, and a difference.' in rows
    assert '–: Fréchet distance, extrapolated takes 8 pieces.' in rows
    assert '–: kernel distance takes two pieces that differ.' in rows
    assert '–: times real time takes a second piece, as the first compiles.' in rows


def test_a_model_is_measured_once(models, tmp_path):
    model = str(models / 'a.safetensors')
    with pytest.raises(InputError, match='that is measured already: name each model once'):
        evaluate(model, 'a.wav', tmp_path / 'out', against=[model])
    with pytest.raises(InputError, match=r'is the name of a baseline: use \./untrained'):
        evaluate('untrained', 'a.wav', tmp_path / 'out')
    with pytest.raises(InputError, match='--webmushra writes the pieces of --media, which is 0'):
        evaluate(model, 'a.wav', tmp_path / 'out', media=0, webmushra=True)
    assert not (tmp_path / 'out').exists()


def test_what_no_browser_plays_is_measured_without_a_page(tmp_path, without_levels, caplog):
    """Six channels, at a rate too high."""
    spectrogram = dataclasses.replace(small_model.CONFIG.spectrogram, sample_rate=192_000)
    config = dataclasses.replace(small_model.CONFIG, spectrogram=spectrogram)
    model = tmp_path / 'model.safetensors'
    save_torch_model(model, config, small_model.random_params())
    for name, channels in (('a', 1), ('b', 6)):
        music = make_music(0.3, 192_000, channels=channels)
        soundfile.write(tmp_path / f'{name}.wav', music.T, 192_000)
    report = evaluate(
        str(model),
        str(tmp_path),
        tmp_path / 'out',
        seconds=0.25,
        media=2,
        processes=0,
        embeddings=['encoder'],
    )
    assert report['systems'][str(model)]['counted']['mel'] == 2
    assert report['systems'][str(model)]['counted']['loudness'] == 1
    assert not (tmp_path / 'out' / 'index.html').exists()
    assert '1 pieces of more than two channels are not on the page' in caplog.messages
    assert 'there is no page: browsers do not play 192000 Hz' in caplog.messages


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
        evaluate(str(paths[0]), 'a.wav', tmp_path / 'out', against=[str(paths[1])])
    assert not (tmp_path / 'out').exists()


def test_noise_levels_of_clips_shorter_than_a_latent_vector_are_measured(tmp_path):
    soundfile.write(tmp_path / 'a.wav', make_music(0.3).T, 44_100)
    codec = EncoderDecoder.from_params(
        Music2Latent(small_model.CONFIG), small_model.random_params()
    )
    clips, _, _ = cut_clips(str(tmp_path), 44_100, 0.05)
    assert np.all(np.isfinite(list(measure_noise_levels(codec, clips).values())))

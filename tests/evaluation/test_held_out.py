import dataclasses
import logging

import jax
import numpy as np
import pytest
import soundfile

from benchmarks import small_model
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.evaluation.clips import Clip, cut_crops
from m2l_jax.evaluation.held_out import EvaluationConfig, HeldOutClips, read_clips
from m2l_jax.interface.devices import compute_once
from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.training import mesh as meshes
from tests.conftest import make_music

RATE = 44_100
GAINS = {'latent_gain', 'latent_gain_over_mean', 'latent_gain_magnitude'}
FIGURES = {
    *('si_sdr', 'lsd', 'mr_stft', 'mel', 'loss', 'error', 'latent_std', 'latents_saturated'),
    *GAINS,
}


def make_config(path, **changes) -> EvaluationConfig:
    config = EvaluationConfig(
        str(path), every=10, clips=4, seconds=0.25, media_clips=1, denoising_steps=1
    )
    return dataclasses.replace(config, **changes)


def write(path, waveform, rate=RATE):
    soundfile.write(path, waveform.T, rate, subtype='FLOAT')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A mono file, and a stereo one of another rate and length."""
    folder = tmp_path_factory.mktemp('heldout')
    write(folder / 'mono.wav', make_music(0.4, seed=1))
    write(folder / 'stereo.wav', make_music(0.3, 22_050, channels=2, seed=2), 22_050)
    return folder


@pytest.fixture(scope='module')
def model():
    return Music2Latent(small_model.CONFIG)


@pytest.fixture(scope='module')
def params(model):
    """Such as do not leave everything as it is: an untrained model's last layer is 0."""
    random = np.random.default_rng(0)
    initial = compute_once(lambda: model.init_params(jax.random.key(0)))
    return jax.tree.map(
        lambda leaf: np.asarray(leaf) + 0.02 * random.standard_normal(leaf.shape, np.float32),
        initial,
    )


@pytest.fixture(scope='module')
def held_out(folder, model):
    return HeldOutClips(make_config(folder), model, 8, 0.00054)


def test_the_same_parameters_give_the_same_figures_wherever_they_live(held_out, params):
    first = held_out.evaluate(params)
    levels = {'0.0081', '0.071', '0.37', '1.4', '4.3', '11', '26', '56'}
    by_level = {f'{name}_sigma_{level}' for name in ('loss', 'error', *GAINS) for level in levels}
    assert set(first.scalars) == {f'evaluation/{name}' for name in FIGURES | by_level}
    assert np.all(np.isfinite(list(first.scalars.values())))
    for name in ('loss', 'error'):
        values = [first.scalars[f'evaluation/{name}_sigma_{level}'] for level in levels]
        assert first.scalars[f'evaluation/{name}'] == pytest.approx(np.mean(values))
    for name in GAINS:
        values = [first.scalars[f'evaluation/{name}_sigma_{level}'] for level in ('11', '26', '56')]
        assert first.scalars[f'evaluation/{name}'] == min(values)

    on_all_devices = jax.device_put(params, meshes.replicated(meshes.make_mesh()))
    assert held_out.evaluate(on_all_devices).scalars == first.scalars
    changed = held_out.evaluate(jax.tree.map(lambda leaf: 1.1 * leaf, params))
    by_error = {f'evaluation/{name}' for name in FIGURES - GAINS - {'latents_saturated'}}
    assert all(changed.scalars[name] != first.scalars[name] for name in by_error)
    codec = held_out._codec
    compiled = (*held_out._measure_bins.programs, codec._encode_program, codec._decode_program)
    assert [function._cache_size() for function in compiled] == [1, 1, 1, 1]


def test_media_are_of_the_first_clips(held_out, params, folder):
    (media,) = held_out.evaluate(params).media
    assert media.name == '0_mono'
    original, _ = soundfile.read(folder / 'mono.wav', dtype='float32')
    np.testing.assert_array_equal(media.original, original[None, : RATE // 4])
    codec = EncoderDecoder.from_params(Music2Latent(held_out._codec.config), params)
    expected = codec.decode(codec.encode(codec.pad(media.original)))[:, : RATE // 4]
    np.testing.assert_allclose(media.reconstruction, expected, atol=1e-6)
    assert media.picture.dtype == np.uint8
    assert media.picture.shape[2] == 3


def test_a_perfect_codec_has_perfect_figures(held_out, params, monkeypatch):
    monkeypatch.setattr(EncoderDecoder, 'encode', lambda self, waveform: waveform)
    monkeypatch.setattr(EncoderDecoder, 'decode', lambda self, latents, steps, seed: latents)
    evaluation = held_out.evaluate(params)
    assert evaluation.scalars['evaluation/lsd'] == 0
    assert evaluation.scalars['evaluation/mr_stft'] == 0
    assert evaluation.scalars['evaluation/si_sdr'] > 200
    described = evaluation.describe()
    assert 'log-spectral distance 0.00 dB, multi-resolution STFT distance 0.000, ' in described
    assert 'mel distance 0.000, loss' in described
    np.testing.assert_array_equal(evaluation.media[0].reconstruction, held_out.clips[0].waveform)


def test_a_diverged_model_is_refused(held_out, params):
    with pytest.raises(InputError, match='the model gives NaN'):
        held_out.evaluate(jax.tree.map(lambda leaf: leaf * np.nan, params))


def test_clips_lie_evenly_in_the_list_and_the_next_stands_in_for_a_bad_one(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for number in range(7):
        write(tmp_path / f'{number}.wav', make_music(0.3, seed=number))
    config = make_config(tmp_path, clips=3)
    assert [clip.name for clip in read_clips(config, RATE, 4096)] == ['0_0', '1_3', '2_5']

    caplog.clear()
    (tmp_path / '0.wav').write_text('not audio')
    write(tmp_path / '1.wav', np.zeros((1, RATE)))
    write(tmp_path / '3.wav', make_music(0.05))
    write(tmp_path / '5.wav', np.full((1, RATE), np.nan))
    write(tmp_path / '6.wav', 1e-4 * make_music(1))
    clips = read_clips(config, RATE, 4096)
    assert [clip.name for clip in clips] == ['0_2', '1_4']
    assert [clip.waveform.shape for clip in clips] == [(1, 4096)] * 2
    *skipped, last = caplog.messages
    assert last == '2 held-out clips of 0.09 s'
    reasons = (
        '0.wav cannot be read as audio',
        '1.wav is silent in its first 0.09 s',
        '3.wav has 0.05 s, less than the 0.09 s of config.evaluation.seconds',
        '5.wav holds NaN',
        '6.wav is silent',
    )
    for message, reason in zip(skipped, reasons, strict=True):
        assert message.startswith(f'skipping {tmp_path}/{reason}')


def test_several_paths_and_files_of_one_name(tmp_path):
    for disc in ('a', 'b'):
        (tmp_path / disc).mkdir()
        write(tmp_path / disc / '01.wav', make_music(0.3))
    clips = read_clips(make_config(f'{tmp_path}/b, {tmp_path}/a/01.wav'), RATE, 4096)
    assert [clip.name for clip in clips] == ['0_01', '1_01']


def test_what_is_not_read_or_too_loud_is_named(tmp_path, caplog):
    write(tmp_path / 'a.wav', make_music(0.3) * 1e30)
    (tmp_path / 'b.m4a').touch()
    with pytest.raises(InputError, match=r'a\.wav is too loud: peak .*e\+2[89] of full scale 1'):
        read_clips(make_config(tmp_path), RATE, 4096)
    assert 'files left out' in caplog.messages[0]
    (tmp_path / 'a.wav').unlink()
    with pytest.raises(InputError, match=r'nothing to evaluate: files left out'):
        read_clips(make_config(tmp_path), RATE, 4096)


@pytest.mark.parametrize('content', [None, 'not audio'])
def test_nothing_to_evaluate_is_refused(tmp_path, content):
    if content:
        (tmp_path / 'a.wav').write_text(content)
    reason = 'a.wav cannot be read' if content else 'there are no audio files'
    with pytest.raises(InputError, match=rf'config\.evaluation\.path=.* nothing .*{reason}'):
        read_clips(make_config(tmp_path), RATE, 4096)


def test_clips_shorter_than_a_crop_are_refused(folder, model):
    with pytest.raises(InputError, match=r'seconds=0\.1 is too short: at least 0\.128, a train'):
        HeldOutClips(make_config(folder, seconds=0.1), model, 8, 0.00054)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'every': 0}, r'config\.evaluation\.every=0 must be at least 1'),
        ({'clips': 0}, r'config\.evaluation\.clips=0 must be at least 1'),
        ({'media_clips': -1}, r'config\.evaluation\.media_clips=-1 must be at least 0'),
        ({'denoising_steps': 0}, r'config\.evaluation\.denoising_steps=0 must be at least 1'),
        ({'seconds': 0.0}, r'config\.evaluation\.seconds=0\.0 must be above 0'),
        ({'seconds': float('nan')}, r'config\.evaluation\.seconds=nan must be above 0'),
    ],
)
def test_a_wrong_setting_is_named(change, message):
    with pytest.raises(InputError, match=message):
        make_config('', **change)


def test_crops_lie_evenly_over_all_clips():
    """Eight of each of two clips, a sixteenth of the way in, then an eighth further each time."""
    clips = [
        Clip('mono', np.arange(1800.0)[None]),
        Clip('stereo', np.stack([np.arange(1800.0), -np.arange(1800.0)])),
    ]
    crops = cut_crops(clips, samples=200)
    starts = 100 + 200 * np.arange(8)
    np.testing.assert_array_equal(crops[:8, 0], starts)
    np.testing.assert_array_equal(crops[8:, 0], starts * np.tile([1, -1], 4))
    np.testing.assert_array_equal(crops[0], np.arange(100, 300))

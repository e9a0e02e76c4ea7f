import math

import jax
import numpy as np
import pytest

from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.interface.devices import compute_once
from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.probing.examples import Example
from m2l_jax.probing.features import extract_pooled, extractors_of, mel_extractor, pool
from tests.commands import tiny
from tests.conftest import make_music

RATE = 44_100


@pytest.fixture(scope='module')
def codec():
    model = Music2Latent(tiny.MODEL)
    return EncoderDecoder.from_params(
        model, compute_once(lambda: model.init_params(jax.random.key(0)))
    )


def make_example(name, waveform):
    def read(rate):
        assert rate == RATE
        if isinstance(waveform, Exception):
            raise waveform
        return waveform

    return Example(name, read, {})


def test_pooling_is_the_mean_and_the_deviation_over_time():
    frames = np.array([[1.0, 3], [2, 2]])
    assert pool(frames, 'mean').tolist() == [2, 2]
    assert pool(frames, 'mean_std').tolist() == [2, 2, 1, 0]


def test_features_are_those_of_each_clip_by_itself(codec):
    clips = [make_music(seconds, channels=2, seed=n) for n, seconds in enumerate((0.3, 0.2, 0.3))]
    examples = [make_example(str(number), clip) for number, clip in enumerate(clips)]
    extractors = extractors_of(codec, ['latents', 'features'], codec)
    done = []
    pooled = extract_pooled(examples, extractors, codec, 'mean', lambda: done.append(1))
    assert (pooled.numbers, pooled.left_out, sum(done)) == ((0, 1, 2), {}, 3)
    assert math.isclose(pooled.seconds, 0.8, rel_tol=1e-3)
    assert list(pooled.features) == [
        *('latents', 'features', 'latents, untrained', 'features, untrained', 'mel spectrogram')
    ]
    for name, wide in (('latents', False), ('features', True)):
        expected = [
            codec.encode(clip.mean(axis=0), extract_features=wide)[0].mean(axis=1) for clip in clips
        ]
        np.testing.assert_allclose(pooled.features[name], expected, atol=1e-4)
    assert pooled.features['mel spectrogram'].shape == (3, 80)


def test_baselines_can_be_left_out(codec):
    assert list(extractors_of(codec, ['latents'], None)) == ['latents']


def test_clips_that_cannot_be_used_are_left_out_and_named(codec):
    examples = [
        make_example('broken', InputError('broken.wav is not audio')),
        make_example('good', make_music(0.2)),
        make_example('brief', make_music(0.01)),
    ]
    extractors, done = extractors_of(codec, ['latents'], None), []
    pooled = extract_pooled(examples, extractors, codec, 'mean', lambda: done.append(1))
    assert sum(done) == 3
    assert pooled.numbers == (1,)
    assert pooled.left_out == {
        'broken': 'broken.wav is not audio',
        'brief': 'brief has 0.010 s, too few for one latent vector: 0.046 s at least',
    }
    with pytest.raises(InputError, match=r'no clip can be used: broken\.wav is not audio'):
        extract_pooled(examples[:1], extractors, codec, 'mean', lambda: None)


def test_batches_are_of_a_minute_or_of_one_longer_clip(codec, monkeypatch):
    monkeypatch.setattr('m2l_jax.probing.features._BATCH_SECONDS', 1)
    lengths = (0.4, 0.4, 0.4, 1.5, 0.2)
    examples = [make_example(str(n), make_music(each, seed=n)) for n, each in enumerate(lengths)]
    batches = []

    def extract(waveforms):
        batches.append([round(len(each) / RATE, 1) for each in waveforms])
        return [np.zeros((1, 1)) for _ in waveforms]

    pooled = extract_pooled(examples, {'x': extract}, codec, 'mean', lambda: None)
    assert batches == [[0.4, 0.4], [0.4], [1.5], [0.2]]
    assert pooled.features['x'].shape == (5, 1)


def test_mel_spectra_are_those_of_librosa():
    librosa = pytest.importorskip('librosa')
    waveform = make_music(0.5)[0]
    (ours,) = mel_extractor(RATE)([waveform])
    power = librosa.feature.melspectrogram(
        y=waveform, sr=RATE, n_fft=2048, hop_length=512, n_mels=80, center=False
    )
    np.testing.assert_allclose(ours, np.log(np.maximum(power / 1024**2 * 4, 1e-10)), atol=1e-3)

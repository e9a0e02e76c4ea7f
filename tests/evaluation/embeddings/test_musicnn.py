import importlib.util
import pathlib

import numpy as np
import pytest

from m2l_jax.evaluation.embeddings import musicnn
from m2l_jax.evaluation.embeddings.musicnn import CHECKPOINTS, Musicnn, cut_patches, log_mel
from m2l_jax.interface.errors import InputError
from tests.conftest import make_music

needs_weights = pytest.mark.skipif(not musicnn.PACKAGE.is_installed(), reason='needs musicnn')

_PENULTIMATE = 'model/batch_normalization_10/batchnorm/add_1'


def original_network(checkpoint, patches):
    """The penultimate layer as TensorFlow computes it by the graph beside the weights."""
    import tensorflow as tf

    package = importlib.util.find_spec('musicnn').submodule_search_locations[0]
    meta = tf.compat.v1.MetaGraphDef()
    meta.ParseFromString(pathlib.Path(package, checkpoint, '.meta').read_bytes())
    for node in meta.graph_def.node:
        node.device = ''
        node.attr.pop('_output_shapes', None)
    graph = tf.compat.v1.graph_util.extract_sub_graph(meta.graph_def, [_PENULTIMATE])
    used = {node.name for node in graph.node}
    weights = musicnn.read_weights(checkpoint)
    feed = {f'{name}:0': weights[name] for name in weights.keys() & used}
    feed |= {'model/Placeholder:0': patches, 'model/Placeholder_2:0': False}  # not in training
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(graph, name='')
        return session.run(f'{_PENULTIMATE}:0', feed)


@needs_weights
@pytest.mark.parametrize('checkpoint', CHECKPOINTS)
def test_embeddings_are_those_of_the_original_graph(checkpoint):
    waveform = make_music(5, 16_000)[0]
    patches = cut_patches(log_mel(waveform), musicnn.HOP_FRAMES)
    wanted = original_network(checkpoint, patches)
    embeddings = Musicnn(checkpoint)(waveform)
    assert embeddings.shape == wanted.shape == (3, 200)
    np.testing.assert_allclose(embeddings, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    assert np.std(wanted, axis=0).max() > 0.1  # or a constant would pass


def test_log_mel_is_that_of_librosa():
    librosa = pytest.importorskip('librosa')
    waveform = make_music(2, 16_000)[0]
    mel = librosa.feature.melspectrogram(
        y=waveform, sr=16_000, n_fft=512, hop_length=256, n_mels=96, pad_mode='reflect'
    )
    frames = log_mel(waveform)
    assert frames.shape == (126, 96)
    np.testing.assert_allclose(frames, np.log10(10_000 * mel.T + 1), atol=1e-4)


def test_patches_are_of_three_seconds_and_shorter_clips_repeated():
    frames = np.arange(400.0)[:, None] * np.ones(96)
    patches = cut_patches(frames, 100)
    assert patches.shape == (3, 187, 96)
    np.testing.assert_array_equal(patches[:, 0, 0], [0, 100, 200])
    np.testing.assert_array_equal(patches[2, -1], 386)
    short = cut_patches(frames[:100], 100)
    assert short.shape == (1, 187, 96)
    np.testing.assert_array_equal(short[0, 99:101, 0], [99, 0])


@needs_weights
def test_a_longer_hop_gives_fewer_embeddings_of_the_same_patches():
    waveform = make_music(7, 16_000)[0]
    every, apart = Musicnn()(waveform), Musicnn(hop_frames=musicnn.PATCH_FRAMES)(waveform)
    assert (len(every), len(apart)) == (5, 2)
    np.testing.assert_array_equal(every[0], apart[0])


@needs_weights
def test_loud_audio_gives_finite_embeddings():
    assert np.all(np.isfinite(Musicnn()(1000 * make_music(1, 16_000)[0])))


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(InputError, match=r'not installed: .* && pip install --no-deps musicnn'):
        Musicnn()


def test_weights_that_are_gone_are_one_line(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location('musicnn', tmp_path / '__init__.py')
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: spec)
    with pytest.raises(InputError, match=r'MSD_musicnn has no weights: pip install .*') as caught:
        Musicnn()
    assert '\n' not in str(caught.value)

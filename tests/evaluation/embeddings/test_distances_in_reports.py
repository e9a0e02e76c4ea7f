import json
import pathlib

import numpy as np
import pytest
import soundfile

from benchmarks import small_model
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.evaluation import quality
from m2l_jax.evaluation.clips import cut_clips
from m2l_jax.evaluation.embeddings import choice
from m2l_jax.evaluation.embeddings.distances import LEAST_CLIPS, measure_distances
from m2l_jax.evaluation.embeddings.systems import EmbeddedClips
from m2l_jax.evaluation.measuring.workers import Workers
from m2l_jax.evaluation.quality import evaluate
from m2l_jax.evaluation.reporting.table import describe_report
from m2l_jax.interface.errors import InputError
from m2l_jax.torch_weights.conversion import save_torch_model
from tests.conftest import make_music
from tests.evaluation.embeddings.tiny_models import save_saved_model

SECONDS = 0.25


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp('model')
    save_torch_model(folder / 'm.safetensors', small_model.CONFIG, small_model.random_params())
    save_saved_model(folder / 'mine')
    soundfile.write(folder / 'a.wav', make_music(SECONDS * 9).T, 44_100, subtype='FLOAT')
    return folder


def run(model, output, embeddings, processes=0):
    options = {'seconds': SECONDS, 'media': 0, 'processes': processes, 'embeddings': embeddings}
    return evaluate(str(model / 'm.safetensors'), str(model / 'a.wav'), output, **options)


@pytest.fixture(autouse=True)
def without_levels(monkeypatch):
    monkeypatch.setattr(quality, 'measure_noise_levels', lambda *_: {})


def test_distances_are_those_of_the_reconstructions(model, tmp_path):
    report = run(model, tmp_path / 'out', ['encoder', f'{model}/mine:8000'], processes=1)
    systems = report['systems']
    assert report['embeddings'] == {'encoder': "encoder, the model's own latents", 'mine': 'mine'}
    codec = EncoderDecoder(model / 'm.safetensors')
    clips, _, _ = cut_clips(str(model / 'a.wav'), 44_100, SECONDS)
    assert len(clips) == 9 >= LEAST_CLIPS
    (mine,) = choice.open_embeddings([f'{model}/mine:8000'], codec)
    pairs = [(clip.waveform, codec.reconstruct(clip.waveform)) for clip in clips]
    for name, embed in (
        ('mine', lambda waveform: mine.embed(waveform, 44_100)),
        ('encoder', lambda waveform: codec.encode(codec.pad(waveform))[0].T),
    ):
        originals, made = zip(*[map(embed, pair) for pair in pairs], strict=True)
        wanted = measure_distances(originals, made)
        measured = systems[str(model / 'm.safetensors')]['distances'][name]
        for figure in ('fad', 'fad_inf', 'kad'):
            assert measured[figure] == pytest.approx(wanted[figure], rel=1e-3), (name, figure)
        assert measured['width'] == {'mine': 4, 'encoder': 8}[name]
    assert list(systems['shaped noise']['distances']) == ['encoder', 'mine']
    assert 'distances' not in systems['untrained']  # which sees few pieces

    row = next(
        line for line in describe_report(report).splitlines() if line.startswith('kernel distance')
    )
    low, high = systems['shaped noise']['distances']['encoder']['interval']['kad']
    assert (
        f'{systems["shaped noise"]["distances"]["encoder"]["kad"]:.4g} [{low:.4g}, {high:.4g}]'
        in row
    )
    stored = json.loads((tmp_path / 'out' / 'report.json').read_text())
    assert stored['systems']['shaped noise']['distances']['mine']['width'] == 4


def test_what_is_missing_is_named_and_left_out(model, tmp_path, monkeypatch):
    monkeypatch.setattr(choice.musicnn.PACKAGE.__class__, 'is_installed', lambda _: False)
    report = run(model, tmp_path / 'out', None)
    assert report['embeddings'] == {}
    assert 'distances: tensorflow, musicnn are not installed: ' in describe_report(report)
    with pytest.raises(InputError, match='musicnn are not installed'):
        run(model, tmp_path / 'asked', ['musicnn'])
    assert not pathlib.Path(tmp_path / 'asked').exists()


def test_none_are_measured_if_none_are_wanted(model, tmp_path):
    report = run(model, tmp_path / 'out', [])
    assert report['systems']['shaped noise']['distances'] == {}
    assert 'distance (lower), ' not in describe_report(report)
    assert np.isfinite(report['systems']['untrained']['mean']['mel'])


def test_a_network_whose_frames_follow_the_sound_is_refused():
    by_peak = choice.Embedding('mine', 'mine', 8000, lambda x: np.ones((1 + int(x.max()), 2)))
    originals, made = (EmbeddedClips([by_peak], 8000) for _ in range(2))
    originals.add(np.zeros((1, 800)))
    made.add(np.full((1, 800), 2.0))
    with pytest.raises(InputError, match=r'^--embeddings: mine gives clips of the same length'):
        made.measure(originals, Workers(0))

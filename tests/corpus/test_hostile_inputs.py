"""What a corpus may hold that must neither end a run nor be written where it should not."""

import dataclasses
import pathlib

import numpy as np
import pytest
import soundfile

from benchmarks import small_model
from m2l_jax.corpus.decode import DecodeJob, DecodeSettings
from m2l_jax.corpus.encode import EncodeJob, EncodeSettings
from m2l_jax.corpus.inputs import latent_items
from m2l_jax.corpus.models import load_codec
from m2l_jax.corpus.plan import Item, Shard
from m2l_jax.corpus.run import run_single
from m2l_jax.corpus.store import StoredLatents, read_latents, write_latents
from m2l_jax.interface.errors import InputError, Interrupted
from tests.conftest import make_music
from tests.corpus.test_latent_dataset import write_dataset

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp('model') / 'model.safetensors'
    small_model.save(path)
    return path, load_codec(path, 'float32').model_id


def encode_job(checkpoint, tmp_path, **settings):
    path, model = checkpoint
    settings = EncodeSettings(model, **settings)
    return EncodeJob(
        str(path), settings, settings.target(small_model.CONFIG, tmp_path / 'out', 1), 1
    )


@pytest.fixture
def decoder(checkpoint, tmp_path):
    path, model = checkpoint
    settings = DecodeSettings(model, 'flac')
    return DecodeJob(str(path), settings, tmp_path / 'out', 1).open()


@pytest.fixture
def encoder(checkpoint, tmp_path):
    return encode_job(checkpoint, tmp_path).open()


def tell(seconds, size):
    pass


def shard_of(folder, *names):
    return Shard(0, tuple(Item(name, str(folder / name), 1) for name in names))


def test_what_cannot_be_decoded_is_named_and_the_rest_is_done(checkpoint, decoder, tmp_path):
    good = StoredLatents(np.zeros((1, 8, 9), np.float32), 44_100, 10_000, 0.06, checkpoint[1])
    files = {
        'wide.npz': dataclasses.replace(good, latents=np.zeros((9, 8, 9), np.float32)),
        'features.npz': dataclasses.replace(good, kind='features'),
        'foreign.npz': dataclasses.replace(good, model='another'),
        'good.npz': good,
    }
    for name, stored in files.items():
        write_latents(tmp_path / name, stored)
    summary = decoder.work(shard_of(tmp_path, *files), tell)
    assert [output.name for output in summary.outputs] == ['good.flac']
    reasons = dict(summary.failures)
    assert 'FLAC cannot hold 9 channels at 44100 Hz' in reasons['wide.npz']
    assert 'holds features, which are not decoded' in reasons['features.npz']
    assert 'was encoded by model another' in reasons['foreign.npz']
    assert soundfile.info(tmp_path / 'out' / 'good.flac').frames == 10_000


@pytest.mark.parametrize('name', ['../evil', '/evil', 'a/../../evil', '..', 'nul\0', '', 300 * 'x'])
def test_no_name_in_a_dataset_leads_out_of_the_folder(checkpoint, decoder, tmp_path, name):
    stored = StoredLatents(np.zeros((1, 8, 9), np.float32), 44_100, 10_000, 0.06, checkpoint[1])
    with pytest.raises(InputError):
        decoder._open(Item('set.array_record-0', '/set.array_record-0', 1), name, stored)


def test_two_datasets_of_one_name_are_refused(tmp_path):
    for parent in ('a', 'b'):
        (tmp_path / parent / 'set').mkdir(parents=True)
        write_dataset(tmp_path / parent / 'set')
    both = f'{tmp_path / "a" / "set"},{tmp_path / "b" / "set"}'
    with pytest.raises(InputError, match="several datasets are called 'set'"):
        latent_items(both, tmp_path / 'out')


def test_a_single_file_does_not_touch_a_corpus(checkpoint, tmp_path):
    encoder = encode_job(checkpoint, tmp_path)
    soundfile.write(tmp_path / 'a.wav', make_music(0.5).T, 44_100)
    told = run_single(encoder, str(tmp_path / 'a.wav'), tmp_path / 'out')
    assert '0.5 s of audio' in told
    assert read_latents(tmp_path / 'out' / 'a.npz').samples == 22_050
    (tmp_path / 'out' / 'job.json').touch()
    with pytest.raises(InputError, match='holds a corpus, with its settings'):
        run_single(encoder, str(tmp_path / 'a.wav'), tmp_path / 'out')


def test_an_mp3_that_does_not_state_its_length_is_encoded_whole(encoder, tmp_path):
    path = tmp_path / 'a.mp3'
    soundfile.write(path, make_music(3).T, 44_100)
    content = path.read_bytes()
    second_frame = content.index(content[:2], content.index(b'Xing'))
    path.write_bytes(content[second_frame:])
    encoder.work(shard_of(tmp_path, 'a.mp3'), tell)
    samples = read_latents(tmp_path / 'out' / 'a.npz').samples
    assert abs(samples - 3 * 44_100) < 5000


def test_a_stop_is_heard_within_a_file(checkpoint, tmp_path):
    encoder = encode_job(checkpoint, tmp_path, chunk_seconds=0.5).open()
    soundfile.write(tmp_path / 'a.wav', make_music(3).T, 44_100)
    told = []

    def stop(seconds, size):
        told.append((seconds, size))
        raise Interrupted('enough')

    with pytest.raises(Interrupted):
        encoder.work(shard_of(tmp_path, 'a.wav'), stop)
    np.testing.assert_allclose(told, [(3 / 6, 1 / 6)], rtol=0.2)
    assert not list((tmp_path / 'out').glob('*'))


def test_chunks_of_days_take_no_more_memory_than_the_file(checkpoint, tmp_path):
    encoder = encode_job(checkpoint, tmp_path, chunk_seconds=1e6).open()
    soundfile.write(tmp_path / 'a.wav', make_music(0.5).T, 44_100)
    summary = encoder.work(shard_of(tmp_path, 'a.wav'), tell)
    assert summary.files == 1

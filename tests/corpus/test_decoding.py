"""What a shard gives, against `EncoderDecoder.decode` of each file alone."""

import dataclasses

import jax
import numpy as np
import pytest
import soundfile

from benchmarks import small_model
from m2l_jax.audio import files
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.corpus import formats
from m2l_jax.corpus.decode import DecodeJob, DecodeSettings, check_first
from m2l_jax.corpus.inputs import latent_items
from m2l_jax.corpus.models import fit_latents
from m2l_jax.corpus.plan import Item, Shard
from m2l_jax.corpus.store import StoredLatents, write_latents
from m2l_jax.data.tfds import ShardWriter
from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import Music2Latent

STEP, REACH = 1024, 1536
CHUNK = 16 * STEP  # samples
OVERLAP = 5 * STEP
STEP_OF_24_BITS = 2**-23


def make_codec():
    model = Music2Latent(small_model.CONFIG)
    devices = jax.local_devices()[:1]
    return EncoderDecoder.from_params(model, small_model.random_params(), devices=devices)


@pytest.fixture(scope='module')
def codec():
    return make_codec()


def make_latents(codec, frames, channels=1, **fields):
    """Of audio that ends in the middle of the last frame's step."""
    latents = np.random.default_rng(frames).standard_normal((channels, 8, frames))
    fields = {'sample_rate': 44_100, 'samples': frames * STEP + 1000, 'scale': 0.06} | fields
    return StoredLatents(latents.astype(np.float32), model=codec.model_id, **fields)


def decode(codec, folder, items, batch_size=1, **settings):
    """Decodes one shard; returns its summary and the audio, by name."""
    defaults = {'chunk_seconds': CHUNK / 44_100, 'overlap_seconds': OVERLAP / 44_100}
    settings = DecodeSettings(codec.model_id, **defaults | settings)
    worker = DecodeJob(None, settings, folder, batch_size, codec).open()
    told = []
    summary = worker.work(Shard(0, tuple(items)), lambda *done: told.append(done))
    if not summary.failures:
        size = sum(item.bytes for item in items if not formats.is_shard(item.path))
        np.testing.assert_allclose(np.sum(told, axis=0), [summary.seconds, size])
    names = [output.name for output in summary.outputs]
    return summary, {name: soundfile.read(folder / name, always_2d=True)[0].T for name in names}


def assert_near(audio, expected):
    """To 90 dB and the rounding to 24 bits."""
    assert audio.shape == expected.shape
    error = np.maximum(np.abs(audio - expected) - STEP_OF_24_BITS, 0)
    assert np.linalg.norm(error) <= 10 ** (-90 / 20) * np.linalg.norm(expected)


@pytest.fixture
def library(codec, tmp_path):
    """Files of latents of several lengths, and what they hold, by name."""
    stored = {
        'long.npz': make_latents(codec, 50),
        'a/stereo.npy': make_latents(codec, 21, 2),
        'short.npz': make_latents(codec, 9),
    }
    for name, latents in stored.items():
        path = tmp_path / 'latents' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_latents(path, latents)
    return latent_items(str(tmp_path / 'latents'), '/nowhere'), stored


@pytest.mark.parametrize(
    ('batch_size', 'settings', 'options'),
    [
        (1, {}, {'overlap': OVERLAP}),
        (3, {}, {'overlap': OVERLAP}),
        (1, {'overlap_seconds': 0.0, 'seed': 3}, {'seed': 3}),
    ],
    ids=['alone', 'in company', 'blunt'],
)
def test_each_files_audio_is_that_of_it_alone(
    codec, library, tmp_path, batch_size, settings, options
):
    items, stored = library
    summary, audio = decode(codec, tmp_path / 'out', items, batch_size, **settings)
    assert (summary.files, summary.failures) == (3, ())
    assert summary.seconds == pytest.approx((80 * STEP + 3000) / 44_100)
    assert summary.latents == 50 + 2 * 21 + 9
    assert sorted(audio) == ['a/stereo.wav', 'long.wav', 'short.wav']
    for name, latents in stored.items():
        expected = codec.decode(latents.latents, max_waveform_length=CHUNK, **options)
        assert_near(audio[f'{name[:-4]}.wav'], expected[:, : latents.samples])


def test_as_many_steps_are_taken_as_asked(codec, library, tmp_path):
    items, stored = library
    short = [item for item in items if item.source == 'short.npz']
    _, audio = decode(codec, tmp_path / 'out', short, denoising_steps=2)
    latents = stored['short.npz']
    expected = codec.decode(latents.latents, denoising_steps=2)[:, : latents.samples]
    assert_near(audio['short.wav'], expected)


def test_left_and_right_come_back_of_mid_and_side(codec, tmp_path):
    latents = make_latents(codec, 21, 2, channel_mode='mid_side')
    write_latents(tmp_path / 'a.npz', latents)
    _, audio = decode(codec, tmp_path, [Item('a.npz', str(tmp_path / 'a.npz'), 1)])
    middle, side = codec.decode(latents.latents, max_waveform_length=CHUNK, overlap=OVERLAP)
    expected = np.clip(np.stack([middle + side, middle - side]), -1, 1)
    assert_near(audio['a.wav'], expected[:, : latents.samples])


def test_rate_scale_and_dtype_are_those_of_the_file(codec, tmp_path):
    latents = make_latents(codec, 9, scale=0.12, sample_rate=48_000)
    halved = (latents.latents / 2).astype(np.float16)
    write_latents(tmp_path / 'a.npz', StoredLatents(**vars(latents) | {'latents': halved}))
    decode(codec, tmp_path, [Item('a.npz', str(tmp_path / 'a.npz'), 1)], format='flac')
    assert files.read_info(tmp_path / 'a.flac').sample_rate == 48_000
    expected = codec.decode(halved.astype(np.float32) * 2)
    assert_near(files.read(tmp_path / 'a.flac', 48_000), expected[:, : latents.samples])


def test_a_dataset_gives_the_same_as_files(codec, library, tmp_path):
    items, stored = library
    record_format = formats.latent_records(8, 'float32')
    folder = tmp_path / 'dataset'
    folder.mkdir()
    with ShardWriter(record_format.shard_path(folder, 0, 1), record_format.features) as writer:
        records = [formats.write_records(writer, name, stored[name]) for name in stored]
    record_format.write_metadata(folder, [sum(records)], 1, formats.describe('float32'))
    _, of_files = decode(codec, tmp_path / 'one', items)
    shards = latent_items(str(folder), '/nowhere')
    summary, of_records = decode(codec, tmp_path / 'other', shards, batch_size=3)
    assert summary.files == 3
    for name, audio in of_files.items():
        # A dataset may hold a.wav and a.mp3, so that its names keep their suffixes.
        (other,) = (other for other in of_records if other.startswith(name[:-4]))
        assert_near(of_records[other], audio)


def test_what_the_model_makes_no_audio_of_costs_no_other(codec, library, tmp_path):
    items, stored = library
    absurd = make_latents(codec, 40, 2)
    absurd.latents[1, :, 30:] = 3e38
    write_latents(tmp_path / 'absurd.npz', absurd)
    (tmp_path / 'damaged.npz').write_bytes(b'PK nothing')
    bad = [Item(name, str(tmp_path / name), 10**6) for name in ('absurd.npz', 'damaged.npz')]
    summary, audio = decode(codec, tmp_path / 'out', [*bad, *items], batch_size=3)
    reasons = dict(summary.failures)
    assert sorted(reasons) == ['absurd.npz', 'damaged.npz']
    # The input's fault, and not the model's.
    assert reasons['absurd.npz'].startswith('absurd.npz holds latents of up to 3e+38, and an enc')
    assert reasons['absurd.npz'].endswith('; of these the model makes NaN')
    assert 'damaged.npz is damaged or holds no latents' in reasons['damaged.npz']
    assert not (tmp_path / 'out' / 'absurd.wav').exists()
    for name, latents in stored.items():
        expected = codec.decode(latents.latents, max_waveform_length=CHUNK, overlap=OVERLAP)
        assert_near(audio[f'{name[:-4]}.wav'], expected[:, : latents.samples])


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'denoising_steps': 0}, '--denoising_steps=0 must be at least 1'),
        ({'chunk_seconds': float('nan')}, '--chunk_seconds=nan must be a number'),
        ({'overlap_seconds': 1.0}, 'a chunk takes at least 0.023 s, and shares at most half'),
    ],
)
def test_bad_settings_are_told(codec, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        decode(codec, tmp_path, [], **settings)


def test_latents_of_models_with_the_same_encoder_are_decoded(codec, tmp_path):
    """A model tuned behind a frozen encoder takes the first one's latents, and no other's."""
    params = dict(codec.params) | {'unet': jax.tree.map(lambda x: 1.1 * x, codec.params['unet'])}
    names = {'first.npz': codec.model_id, 'zeroth.npz': '0' * 16, 'other.npz': '1' * 16}
    latents = make_latents(codec, 9)
    for name, model in names.items():
        write_latents(tmp_path / name, dataclasses.replace(latents, model=model))
    items = [Item(name, str(tmp_path / name), 10**6) for name in names]
    config = dataclasses.replace(codec.config, latents_of=(codec.model_id, '0' * 16))
    tuned = EncoderDecoder.from_params(Music2Latent(config), params, devices=jax.devices()[:1])
    assert tuned.model_id != codec.model_id
    summary, audio = decode(tuned, tmp_path / 'out', items)
    ((name, reason),) = summary.failures
    assert name == 'other.npz'
    assert f'was encoded by model {"1" * 16}, this checkpoint is {tuned.model_id}' in reason
    expected = tuned.decode(latents.latents)[:, : latents.samples]
    for name in ('first.wav', 'zeroth.wav'):
        assert_near(audio[name], expected)
    check_first(items[0], tuned)
    with pytest.raises(InputError, match='was encoded by model'):
        check_first(items[2], tuned)
    fitted, _ = fit_latents('first.npz', latents, tuned, None, None)
    assert fitted[0].model == tuned.model_id

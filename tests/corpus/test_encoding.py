"""What a shard gives, against `EncoderDecoder.encode` of each file alone."""

import dataclasses
import logging

import jax
import ml_dtypes
import numpy as np
import pytest
import soundfile

from benchmarks import small_model
from m2l_jax.audio import files
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.corpus.encode import EncodeJob, EncodeSettings
from m2l_jax.corpus.inputs import find_audio, latent_items, read_latent_item
from m2l_jax.corpus.plan import Item, Shard
from m2l_jax.corpus.run import run_single
from m2l_jax.data.tfds import AudioRecords, ShardWriter, segment_format
from m2l_jax.model.autoencoder import Music2Latent
from tests.conftest import make_music
from tests.data.test_tfds_audio import make_record

STEP, REACH = 1024, 1536
CHUNK = 16 * STEP  # samples
SECONDS = CHUNK / 44_100


@pytest.fixture(scope='module')
def codec():
    model = Music2Latent(small_model.CONFIG)
    devices = jax.local_devices()[:1]
    return EncoderDecoder.from_params(model, small_model.random_params(), devices=devices)


@pytest.fixture(scope='module')
def music(tmp_path_factory):
    """Of several rates, channels, formats, and lengths in chunks."""
    folder = tmp_path_factory.mktemp('music')
    for name, samples, rate, channels in (
        ('long.flac', 70_000, 44_100, 1),
        ('stereo.wav', 40_000, 48_000, 2),
        ('short.ogg', 9_000, 44_100, 1),
        ('a/right.wav', 40_000, 44_100, 2),
    ):
        audio = make_music(samples / rate, rate, channels, seed=samples)
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, audio.T, rate)
    return folder


def encode(codec, folder, items, batch_size=1, **settings):
    """Encodes one shard; returns its summary and what is stored, by name without suffix."""
    settings = EncodeSettings(codec.model_id, **{'chunk_seconds': SECONDS} | settings)
    job = EncodeJob(None, settings, settings.target(codec.config, folder, 1), batch_size, codec)
    told = []
    summary = job.open().work(Shard(0, tuple(items)), lambda *done: told.append(done))
    if not summary.failures:
        size = sum(item.bytes for item in items)
        np.testing.assert_allclose(np.sum(told, axis=0), [summary.seconds, size])
    job.complete([summary])
    stored = {
        name.removesuffix('.npz').removesuffix('.npy'): latents
        for item in latent_items(str(folder), '/nowhere')
        for name, latents in read_latent_item(item)
    }
    return summary, stored


def assert_near(actual, expected):
    """To 90 dB."""
    assert actual.shape == expected.shape
    assert np.linalg.norm(actual - expected) <= 10 ** (-90 / 20) * np.linalg.norm(expected)


def stem(item):
    return item.source.rsplit('.', 1)[0]


@pytest.mark.parametrize(
    ('settings', 'options'),
    [
        ({}, {}),
        ({'overlap_seconds': 4000 / 44_100}, {'overlap': 4000}),
        ({'kind': 'features'}, {'extract_features': True}),
    ],
    ids=['latents', 'overlap', 'features'],
)
def test_each_files_latents_are_those_of_it_alone(codec, music, tmp_path, settings, options):
    items = find_audio(str(music), tmp_path)[0]
    summary, stored = encode(codec, tmp_path, items, **settings)
    assert (summary.files, summary.failures) == (4, ())
    assert summary.seconds == pytest.approx(
        sum(files.read_info(i.path).samples_at(44_100) for i in items) / 44_100
    )
    assert summary.latents == sum(s.latents[:, 0].size for s in stored.values())
    for item in items:
        audio = files.read(item.path, 44_100)
        result = stored[stem(item)]
        expected = codec.encode(audio, CHUNK, **options)
        assert result.latents.shape == expected.shape
        assert_near(result.latents, expected)
        chunks = codec.chunking(CHUNK, options.get('overlap', 0)).cut(expected.shape[2])
        assert result.chunk_offsets == tuple(chunk.begin for chunk in chunks)
        assert (result.samples, result.sample_rate) == (audio.shape[1], 44_100)
        assert result.kind == settings.get('kind', 'latents')
        assert result.scale == (1.0 if 'kind' in settings else 0.06)
        assert (result.model, result.channel_mode) == (codec.model_id, 'each')
    assert len(stored['long'].chunk_offsets) >= 5


def test_mono_by_a_stereo_model_is_logged_once(music, tmp_path, caplog):
    config = dataclasses.replace(small_model.CONFIG, channels=4)
    params = small_model.random_params(config)
    stereo = EncoderDecoder.from_params(
        Music2Latent(config), params, devices=jax.local_devices()[:1]
    )
    items, _ = find_audio(str(music / '*.*'), str(tmp_path))
    caplog.set_level(logging.INFO)
    _, stored = encode(stereo, tmp_path / 'out', items, channel_mode='joint')
    assert [len(stored[name].latents) for name in ('long', 'short', 'stereo')] == [1, 1, 1]
    (line,) = [each for each in caplog.messages if ' is mono' in each]
    assert line.startswith(('long.flac is mono: ', 'short.ogg is mono: '))
    assert line.endswith('others like it, as both of its channels, and decodes two')


def test_mono_is_encoded_of_the_mean(codec, music, tmp_path):
    items = find_audio(str(music), tmp_path)[0]
    _, stored = encode(codec, tmp_path, items, channel_mode='mono')
    for item in items:
        mean = files.read(item.path, 44_100).mean(axis=0)
        assert stored[stem(item)].channel_mode == 'mono'
        assert_near(stored[stem(item)].latents, codec.encode(mean, CHUNK))


def test_mid_and_side_are_encoded_where_there_are_two_channels(codec, music, tmp_path):
    soundfile.write(tmp_path / 'surround.wav', np.zeros((20_000, 3)), 44_100)
    items = [
        Item('stereo.wav', str(music / 'stereo.wav'), 1),
        Item('short.ogg', str(music / 'short.ogg'), 1),
        Item('surround.wav', str(tmp_path / 'surround.wav'), 1),
    ]
    summary, stored = encode(codec, tmp_path / 'out', items, channel_mode='mid_side')
    left, right = files.read(music / 'stereo.wav', 44_100)
    expected = codec.encode(np.stack([left + right, left - right]) / 2, CHUNK)
    assert_near(stored['stereo'].latents, expected)
    short = codec.encode(files.read(music / 'short.ogg', 44_100), CHUNK)
    assert_near(stored['short'].latents, short)
    ((name, reason),) = summary.failures
    assert name == 'surround.wav'
    assert reason == '3 channels have no mid and side: take --channels=each or mono'


@pytest.mark.parametrize('rate', [44_100, 48_000])
def test_silence_completes_the_last_latent_vector_if_asked(codec, music, tmp_path, rate):
    items = find_audio(str(music), tmp_path)[0]
    chunk_seconds = CHUNK / rate
    _, stored = encode(
        codec, tmp_path, items, pad=True, sample_rate=rate, chunk_seconds=chunk_seconds
    )
    for item in items:
        audio = files.read(item.path, rate)
        result = stored[stem(item)]
        samples = files.read_info(item.path).samples_at(rate)
        assert (result.samples, result.sample_rate) == (samples, rate)
        assert result.latents.shape[2] == -(-audio.shape[1] // STEP)
        assert_near(result.latents, codec.encode(codec.pad(audio), CHUNK))


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
@pytest.mark.parametrize('form', ['npy', 'tfds'])
def test_storage_is_rounded_once(codec, music, tmp_path, dtype, form):
    items = [Item('short.ogg', str(music / 'short.ogg'), 1)]
    (exact,) = encode(codec, tmp_path / 'exact', items)[1].values()
    (rounded,) = encode(codec, tmp_path / 'rounded', items, storage=dtype, format=form)[1].values()
    assert rounded.latents.dtype == getattr(ml_dtypes, dtype, np.float16)
    np.testing.assert_array_equal(rounded.latents, exact.latents.astype(rounded.latents.dtype))


def test_what_a_dtype_cannot_hold_is_a_files_failure(codec, music, tmp_path):
    items = find_audio(str(music), tmp_path)[0]
    loud = codec.with_params(jax.tree.map(lambda leaf: leaf * 1e6, codec.params))
    summary, _ = encode(loud, tmp_path, items, kind='features', storage='float16', format='tfds')
    reasons = [reason for _, reason in summary.failures]
    assert len(reasons) == 4
    assert all('too large for float16 (6.55e+04 at most)' in reason for reason in reasons)


def test_company_changes_nothing(codec, music, tmp_path):
    items = find_audio(str(music), tmp_path / 'out')[0]
    _, alone = encode(codec, tmp_path / 'npz', items)
    _, together = encode(codec, tmp_path / 'tfds', items[::-1], batch_size=3, format='tfds')
    for item in items:
        one, other = alone[stem(item)], together[item.source]
        assert_near(other.latents, one.latents)
        assert other.chunk_offsets == one.chunk_offsets
        assert other.samples == one.samples


def test_records_of_a_dataset_are_encoded_like_files(codec, tmp_path):
    folder = tmp_path / 'audio'
    folder.mkdir()
    path = segment_format().shard_path(folder, 0, 1)
    audio = (make_music(1) * 32767).astype(np.int16)[0]
    with ShardWriter(path, segment_format().features) as writer:
        for length in (44_100, 10_000, 100):
            writer.write({**make_record(0), 'audio': audio[:length]})
    segment_format().write_metadata(folder, [3], 1234, 'for a test')
    items = find_audio(str(folder), tmp_path / 'out')[0]
    summary, stored = encode(codec, tmp_path / 'out', items, format='tfds')
    assert summary.files == 2
    assert summary.failures == (
        ('train/00000002', '100 samples are too few to encode: 2560 at least'),
    )
    records = AudioRecords(str(folder))
    for number in range(2):
        result = stored[f'train/{number:08d}']
        assert_near(result.latents, codec.encode(records.read(number, 44_100), CHUNK))


def test_a_file_that_fails_midway_costs_no_other(codec, music, tmp_path):
    broken = tmp_path / 'broken.flac'
    soundfile.write(broken, np.tile(make_music(2), 20).T, 44_100)
    content = bytearray(broken.read_bytes())
    content[-60_000:-50_000] = bytes(10_000)
    broken.write_bytes(content)
    first = next(files.read_blocks(broken, 44_100, 30 * 44_100))
    assert first.shape == (1, 30 * 44_100)  # of which many chunks are encoded
    items = [*find_audio(str(music), tmp_path / 'out')[0], Item('b/broken.flac', str(broken), 1)]
    summary, stored = encode(codec, tmp_path / 'out', items, batch_size=3)
    ((name, reason),) = summary.failures
    assert name == 'b/broken.flac'
    assert 'broken.flac is damaged' in reason
    assert summary.files == 4
    assert sorted(stored) == sorted(map(stem, items[:4]))
    for item in items[:4]:
        expected = codec.encode(files.read(item.path, 44_100), CHUNK)
        assert_near(stored[stem(item)].latents, expected)


@pytest.mark.filterwarnings('error')
def test_absurd_numbers_are_their_files_failure(codec, music, tmp_path):
    """Finite, but not to be added up; others share their batches."""
    audio = make_music(0.3, channels=2)
    audio[0, 5000:6000] = 1e38
    audio[1, 5500:7000] = 3e38
    soundfile.write(tmp_path / 'loud.wav', audio.T, 44_100, 'FLOAT')
    items = [
        Item('loud.wav', str(tmp_path / 'loud.wav'), 1),
        Item('short.ogg', str(music / 'short.ogg'), 1),
    ]
    for mode in ('each', 'mono', 'mid_side'):
        out = tmp_path / mode
        summary, stored = encode(codec, out, items, batch_size=3, channel_mode=mode)
        assert summary.failures == (
            ('loud.wav', 'loud.wav encodes to NaN or infinity: replace or remove it'),
        )
        expected = codec.encode(files.read(music / 'short.ogg', 44_100), CHUNK)
        assert_near(stored['short'].latents, expected)


def test_what_is_hardly_audio_is_encoded_with_a_warning(codec, music, tmp_path):
    folder = tmp_path / 'odd'
    folder.mkdir()
    audio = make_music(0.3, channels=2)
    audio[1, 5000] = 1.5
    soundfile.write(folder / 'fine.wav', audio.T, 44_100, 'FLOAT')
    audio[0, 5000] = 1
    soundfile.write(folder / 'loud.wav', (audio / 1.5).T * 32_768, 44_100, 'FLOAT')
    soundfile.write(folder / 'silent.wav', np.zeros((20_000, 2)), 44_100)
    soundfile.write(folder / 'still.flac', np.full(20_000, 0.25), 48_000)
    summary, stored = encode(codec, tmp_path / 'out', find_audio(str(folder), '/nowhere')[0])
    assert (summary.files, summary.failures) == (4, ())
    assert sorted(stored) == ['fine', 'loud', 'silent', 'still']
    assert summary.warnings == (
        ('loud.wav', 'too loud: peak 32768 of full scale 1; divide its samples by 32768'),
        ('silent.wav', 'all samples are equal (0.0): silence'),
        ('still.flac', 'all samples are equal (0.25): no sound'),
    )


def test_a_file_by_itself_is_warned_of(codec, tmp_path, caplog):
    caplog.set_level(logging.WARNING, 'm2l_jax')
    path = tmp_path / 'silent.wav'
    soundfile.write(path, np.zeros(20_000), 44_100)
    settings = EncodeSettings(codec.model_id, chunk_seconds=SECONDS)
    job = EncodeJob(None, settings, settings.target(codec.config, tmp_path / 'out', 1), 1, codec)
    run_single(job, str(path), tmp_path / 'out')
    assert caplog.messages == [f'{path}: all samples are equal (0.0): silence']


@pytest.mark.parametrize(('samples', 'length', 'frames'), [(6130, 5631, 3), (6131, 5632, 4)])
def test_a_resampled_file_has_as_many_frames_alone(codec, tmp_path, samples, length, frames):
    """6130 samples at 48 kHz are 5631.9 at the model's rate, and 5632 make four frames."""
    path = tmp_path / 'a.wav'
    soundfile.write(path, make_music(1, 48_000)[:, :samples].T, 48_000)
    _, stored = encode(codec, tmp_path / 'out', find_audio(str(path), '/nowhere')[0])
    assert stored['a'].samples == length
    assert stored['a'].latents.shape[2] == frames
    assert codec.encode(path, CHUNK).shape[2] == frames


def test_nothing_is_compiled_once_it_is_warm(codec, music, tmp_path):
    """Whatever the lengths: five are enough for a chunk of sixteen."""
    compiled = []

    def listen(event, seconds, **details):
        if event == '/jax/core/compile/backend_compile_duration':
            compiled.append(event)

    folder = tmp_path / 'music'
    folder.mkdir()
    for number, latents in enumerate((8, 10, 12, 14, 16)):
        audio = make_music((latents * STEP + REACH) / 44_100, channels=2)
        soundfile.write(folder / f'{number}.wav', audio.T, 44_100)
    fresh = EncoderDecoder.from_params(Music2Latent(codec.config), codec.params)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        encode(fresh, tmp_path / 'warm', find_audio(str(folder), '/nowhere')[0], batch_size=2)
        assert len(compiled) >= 5
        compiled.clear()
        for number in range(1, 30):
            audio = make_music((number * STEP + REACH + 37 * number) / 44_100, channels=2)
            soundfile.write(folder / f'{number}.wav', audio.T, 44_100)
        items = find_audio(f'{folder},{music}', '/nowhere')[0]
        summary, _ = encode(fresh, tmp_path / 'out', items, batch_size=2)
        assert summary.files == 34
        assert compiled == []
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)

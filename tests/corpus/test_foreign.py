"""Latents that others made or changed, decoded as `decode` does it."""

import dataclasses
import io
import json
import logging
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
import soundfile

from benchmarks.small_model import CONFIG
from m2l_jax.corpus import formats
from m2l_jax.corpus.inputs import latent_items
from m2l_jax.corpus.plan import Item
from m2l_jax.corpus.store import read_latents, write_latents
from m2l_jax.data.tfds import ShardWriter
from m2l_jax.interface.errors import InputError
from tests.corpus.test_decoding import REACH, STEP, assert_near, decode, make_codec, make_latents

WIDTH = CONFIG.latent_channels


@pytest.fixture(scope='module')
def codec():
    return make_codec()


def draw(*shape):
    return np.random.default_rng(shape[-1]).standard_normal(shape).astype(np.float32)


def item(path):
    return Item(path.name, str(path), path.stat().st_size)


def decode_one(codec, path, **settings):
    """The audio of a file by itself, and what the user is told of it."""
    summary, audio = decode(codec, path.parent / 'out', [item(path)], **settings)
    assert summary.failures == ()
    assert [name for name, _ in summary.warnings] == [path.name] * len(summary.warnings)
    (waveform,) = audio.values()
    return waveform, [line for _, line in summary.warnings]


def refusal(codec, path):
    """Why a file is not decoded."""
    summary, audio = decode(codec, path.parent / 'out', [item(path)])
    assert (summary.files, audio) == (0, {})
    ((name, reason),) = summary.failures
    assert name == path.name
    return reason


@pytest.mark.parametrize(
    'dtype', ['float16', 'float32', 'float64', '>f4', ml_dtypes.bfloat16, np.longdouble]
)
@pytest.mark.parametrize('shape', [(WIDTH, 9), (2, WIDTH, 9)])
def test_a_bare_array_is_decoded_whole(codec, tmp_path, shape, dtype):
    latents = draw(*shape).astype(dtype)
    np.save(tmp_path / 'a.npy', latents)
    waveform, told = decode_one(codec, tmp_path / 'a.npy')
    assert told == []
    assert waveform.shape[1] == 9 * STEP + REACH
    assert_near(waveform, codec.decode(latents.astype(np.float32)))
    assert soundfile.info(tmp_path / 'out' / 'a.wav').samplerate == 44_100


@pytest.mark.parametrize('name', ['latents', 'arr_0', 'z'])
def test_an_npz_with_an_array_alone_is_decoded(codec, tmp_path, name):
    np.savez(tmp_path / 'a.npz', **{name: draw(2, WIDTH, 9)})
    waveform, told = decode_one(codec, tmp_path / 'a.npz')
    assert told == []
    assert_near(waveform, codec.decode(draw(2, WIDTH, 9)))


def test_what_an_npz_says_of_its_array_is_taken(codec, tmp_path):
    np.savez(tmp_path / 'a.npz', z=draw(WIDTH, 9), scale=1, sample_rate=48_000.0, samples=9500)
    waveform, _ = decode_one(codec, tmp_path / 'a.npz')
    expected = codec.decode(draw(WIDTH, 9) * np.float32(1 / 0.06))
    assert_near(waveform, expected[:, :9500])
    assert soundfile.info(tmp_path / 'out' / 'a.wav').samplerate == 48_000


def test_the_suffix_may_be_the_other_formats(codec, tmp_path):
    content = io.BytesIO()
    np.savez(content, draw(WIDTH, 9))
    (tmp_path / 'a.npy').write_bytes(content.getvalue())
    waveform, _ = decode_one(codec, tmp_path / 'a.npy')
    assert_near(waveform, codec.decode(draw(WIDTH, 9)))


def test_each_of_a_batch_becomes_a_file(codec, tmp_path):
    batch = draw(11, 1, WIDTH, 9)
    np.save(tmp_path / 'a.npy', batch)
    summary, audio = decode(codec, tmp_path / 'out', [item(tmp_path / 'a.npy')])
    assert (summary.files, summary.failures, summary.warnings) == (11, (), ())
    assert summary.latents == 11 * 9
    assert sorted(audio) == [f'a-{number:02d}.wav' for number in range(11)]
    for number, latents in enumerate(batch):
        assert_near(audio[f'a-{number:02d}.wav'], codec.decode(latents))


def test_a_batch_takes_no_other_inputs_place(codec, tmp_path):
    np.save(tmp_path / 'a.npy', draw(2, 1, WIDTH, 9))
    np.save(tmp_path / 'a-1.npy', draw(WIDTH, 9))
    items = latent_items(str(tmp_path), '/nowhere')
    summary, audio = decode(codec, tmp_path / 'out', items)
    assert list(audio) == ['a-1.wav']
    ((name, reason),) = summary.failures
    assert name == 'a.npy'
    assert 'a.npy is a batch, and ' in reason
    assert 'a-1.npy would become the same audio file' in reason


def test_one_of_a_batch_that_gives_no_audio_costs_no_other(codec, tmp_path):
    batch = draw(3, 1, WIDTH, 9)
    batch[1] = 3e38
    np.save(tmp_path / 'a.npy', batch)
    summary, audio = decode(codec, tmp_path / 'out', [item(tmp_path / 'a.npy')])
    assert sorted(audio) == ['a-0.wav', 'a-2.wav']
    ((name, reason),) = summary.failures
    assert name == 'a.npy-1'
    assert 'a.npy-1 holds latents of up to 3e+38' in reason


def test_flags_say_what_files_do_not(codec, tmp_path, caplog):
    caplog.set_level(logging.INFO, 'm2l_jax')
    for name in ('a', 'b'):
        np.save(tmp_path / f'{name}.npy', draw(WIDTH, 9))
    write_latents(tmp_path / 'own.npz', make_latents(codec, 9, scale=0.12))
    items = latent_items(str(tmp_path), '/nowhere')
    summary, audio = decode(codec, tmp_path / 'out', items, sample_rate=32_000, scale=0.03)
    assert_near(audio['a.wav'], codec.decode(draw(WIDTH, 9) / 2))
    own = read_latents(tmp_path / 'own.npz')
    assert_near(audio['own.wav'], codec.decode(own.latents * 2)[:, : own.samples])
    rates = {name: soundfile.info(tmp_path / 'out' / name).samplerate for name in sorted(audio)}
    assert rates == {'a.wav': 32_000, 'b.wav': 32_000, 'own.wav': 44_100}
    assert summary.warnings == (
        ('own.npz', 'says sample_rate=44100: --sample_rate=32000 is not used for it'),
        ('own.npz', 'says scale=0.12: --scale=0.03 is not used for it'),
    )
    # Once for both.
    (line,) = [record.message for record in caplog.records if 'its model' in record.message]
    assert line.startswith('a.npy does not say its model') or line.startswith('b.npy does not')


@pytest.mark.parametrize('scale', [0.0, -1.0, np.nan, np.inf])
def test_a_scale_that_is_none_is_told(codec, tmp_path, scale):
    with pytest.raises(InputError, match=r'--scale=.* must be a number above 0'):
        decode(codec, tmp_path, [], scale=scale)


@pytest.mark.parametrize('suffix', ['.npz', '.npy'])
@pytest.mark.parametrize('frames', [63, 7])
def test_latents_that_were_lengthened_or_cut_are_followed(codec, tmp_path, frames, suffix):
    stored = make_latents(codec, 21, chunk_offsets=(0, 10))
    edited = dataclasses.replace(stored, latents=draw(1, WIDTH, frames))
    write_latents(tmp_path / f'a{suffix}', edited)
    waveform, told = decode_one(codec, tmp_path / f'a{suffix}', chunk_seconds=60.0)
    assert_near(waveform, codec.decode(edited.latents))
    samples = frames * STEP + REACH
    length = (
        f'has {frames} latent vectors, {samples} samples of audio, and says '
        f'samples={stored.samples}: all the vectors are decoded'
    )
    late = 'has 7 latent vectors and says that a chunk begins at 10'
    assert told == sorted([length, *([late] if frames == 7 else [])])


def test_records_that_were_lengthened_are_followed(codec, tmp_path):
    record_format = formats.latent_records(WIDTH, 'float32')
    path = record_format.shard_path(tmp_path, 0, 1)
    edited = dataclasses.replace(make_latents(codec, 21, samples=21 * STEP), latents=draw(1, 8, 63))
    with ShardWriter(path, record_format.features) as writer:
        records = formats.write_records(writer, 'a.wav', edited)
    record_format.write_metadata(tmp_path, [records], 1, formats.describe('float32'))
    summary, audio = decode(codec, tmp_path / 'out', [item(path)], chunk_seconds=60.0)
    assert_near(audio['a.wav.wav'], codec.decode(edited.latents))
    ((name, line),) = summary.warnings
    assert name == 'a.wav'
    assert line.endswith(f'and says samples={21 * STEP}: all the vectors are decoded')


@pytest.mark.parametrize('samples', [20 * STEP + 1, 21 * STEP + REACH, 22 * STEP + REACH - 1])
def test_a_length_that_encoding_gives_is_kept(codec, tmp_path, samples):
    """Silence completed the last vector, or up to a vector's samples were too few for one."""
    write_latents(tmp_path / 'a.npz', make_latents(codec, 21, samples=samples))
    waveform, told = decode_one(codec, tmp_path / 'a.npz')
    assert told == []
    assert waveform.shape[1] == min(samples, 21 * STEP + REACH)


@pytest.mark.parametrize(('mode', 'channels'), [('mono', 2), ('mid_side', 3)])
def test_channels_that_do_not_fit_their_mode_are_left_as_they_are(codec, tmp_path, mode, channels):
    stored = make_latents(codec, 9, channels, channel_mode=mode)
    write_latents(tmp_path / 'a.npz', stored)
    waveform, told = decode_one(codec, tmp_path / 'a.npz')
    assert told == [f'has {channels} channels and says channel_mode={mode}: they are left as is']
    assert_near(waveform, codec.decode(stored.latents)[:, : stored.samples])


@pytest.mark.parametrize(
    ('array', 'line'),
    [
        (draw(WIDTH, WIDTH), 'has shape (8, 8): the last axis is taken for frames'),
        (draw(5, WIDTH, 9), 'has shape (5, 8, 9): 5 channels of one file; a batch has 4 axes'),
        (0.06 * draw(WIDTH, 9), "is within ±1, as are the model's latents before they are scaled"),
        (50 * draw(WIDTH, 9), 'and an encoder gives 16.7 at most: check --scale'),
    ],
)
def test_what_may_be_meant_otherwise_is_told(codec, tmp_path, array, line):
    np.save(tmp_path / 'a.npy', array)
    waveform, (told,) = decode_one(codec, tmp_path / 'a.npy')
    assert line in told
    assert_near(waveform, codec.decode(array))


@pytest.mark.parametrize(
    ('array', 'message'),
    [
        (draw(1, 32, 9), 'each latent vector has 32 numbers, where the model wants 8'),
        (draw(9, WIDTH), 'frames come last in latents: save array.swapaxes(-1, -2)'),
        (draw(3, 2, 9, WIDTH), 'frames come last in latents'),
        (draw(2, 44_100), 'has shape (2, 44100): this looks like audio: encode it first'),
        (draw(44_100, 2), 'this looks like audio'),
        (draw(44_100), 'this looks like audio'),
        (draw(3, 1, 44_100), 'this looks like audio'),
        (draw(1, CONFIG.feature_channels, 9), 'these are features, which are not decoded'),
        (draw(9, CONFIG.feature_channels), 'these are features'),
        (np.zeros((1, WIDTH, 0)), 'is empty: its array has shape (1, 8, 0)'),
        (np.float32(1), 'has shape (): latents are [8, frames], [channels, 8, frames] or [batch'),
        (np.zeros((1, 1, 1, WIDTH, 9)), 'latents are [8, frames]'),
        (np.ones((WIDTH, 9), np.int16), 'holds int16: latents are floating-point numbers'),
        (np.ones((WIDTH, 9), np.complex64), 'holds complex64: latents are floating-point'),
        (np.full((WIDTH, 9), np.nan), 'holds NaN or infinity'),
        (np.full((WIDTH, 9), -np.inf, ml_dtypes.bfloat16), 'holds NaN or infinity'),
        (np.full((WIDTH, 9), 1e300), 'holds latents of up to 1e+300, at scale 0.06: too large'),
        (np.array([{}]), 'it holds Python objects, which are never loaded'),
    ],
)
@pytest.mark.parametrize('suffix', ['.npy', '.npz'])
def test_what_is_no_latents_is_told(codec, tmp_path, array, message, suffix):
    path = tmp_path / f'a{suffix}'
    if suffix == '.npy':
        np.save(path, array, allow_pickle=True)
    else:
        np.savez(path, latents=array)
    reason = refusal(codec, path)
    assert f'a{suffix} ' in reason
    assert message in reason
    assert '\n' not in reason


def zipped(name):
    content = io.BytesIO()
    with zipfile.ZipFile(content, 'w') as file:
        file.writestr(name, b'content')
    return content.getvalue()


def two_arrays():
    content = io.BytesIO()
    np.savez(content, a=draw(WIDTH, 9), b=draw(WIDTH, 9))
    return content.getvalue()


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('a.wav', b'RIFF', 'a.wav is audio, not latents: encode it first'),
        ('a.safetensors', b'\2\0\0\0\0\0\0\0{}', 'it is not a NumPy file: save the latents with'),
        ('a.pt', zipped('archive/data.pkl'), 'it is a zip without arrays: save the latents with'),
        ('a.npz', zipped('a.txt'), 'it is a zip without arrays'),
        ('a.npz', two_arrays(), 'it holds a, b: call one of the arrays latents'),
        ('a.npy', pickle.dumps({'latents': 1}), 'it is not a NumPy file'),
        ('a.npy', b'', 'it is not a NumPy file'),
    ],
)
def test_a_file_of_something_else_is_told(codec, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    reason = refusal(codec, tmp_path / name)
    assert name in reason
    assert message in reason


@pytest.mark.parametrize(
    ('record', 'message'),
    [
        ('{', 'is damaged or holds no latents (Expecting property name'),
        ('[1]', 'it is no object with named fields'),
        ({'sample_rate': 'fast'}, "sample_rate is 'fast'"),
        ({'sample_rate': 10**30}, f'sample_rate is {10**30}'),
        ({'model': 'another'}, 'was encoded by model another'),
        ({'kind': 'features'}, 'holds features, which are not decoded'),
    ],
)
def test_a_record_that_is_not_the_arrays_is_told(codec, tmp_path, record, message):
    np.save(tmp_path / 'a.npy', draw(WIDTH, 9))
    text = record if isinstance(record, str) else json.dumps(record)
    (tmp_path / 'a.npy.json').write_text(text)
    reason = refusal(codec, tmp_path / 'a.npy')
    assert 'a.npy' in reason
    assert message in reason


def test_a_sample_rate_that_no_file_holds_is_told(codec, tmp_path):
    write_latents(tmp_path / 'a.npz', make_latents(codec, 9, sample_rate=10**12))
    assert 'sample_rate is 1000000000000' in refusal(codec, tmp_path / 'a.npz')

"""Tokens of a corpus: encoded, kept, verified and decoded."""

import dataclasses
import json

import numpy as np
import pytest
import soundfile

from benchmarks import small_model
from m2l_jax.corpus import store
from m2l_jax.corpus.inputs import find_audio, latent_items
from m2l_jax.corpus.plan import Item, describe_output
from m2l_jax.corpus.store import StoredLatents, read_latents, write_latents
from m2l_jax.corpus.verify import verify
from tests.codec.test_tokens import CONFIG, make_codec
from tests.conftest import make_music
from tests.corpus.test_decoding import REACH, STEP, assert_near, decode
from tests.corpus.test_encoding import encode

WIDTH = CONFIG.latent_channels
TOKENS = {'kind': 'tokens', 'storage': 'uint8'}


@pytest.fixture(scope='module')
def codec():
    return make_codec()


@pytest.fixture(scope='module')
def music(tmp_path_factory):
    folder = tmp_path_factory.mktemp('music')
    for name, seconds, channels in (('a.wav', 0.5, 1), ('b.wav', 0.3, 2)):
        soundfile.write(folder / name, make_music(seconds, channels=channels).T, 44_100)
    return folder


@pytest.mark.parametrize('format', ['npz', 'npy', 'tfds'])
def test_a_corpus_of_tokens_is_encoded_verified_and_decoded(codec, music, tmp_path, format):
    folder = tmp_path / 'tokens'
    items, _ = find_audio(str(music), str(folder))
    summary, stored = encode(codec, folder, items, format=format, **TOKENS)
    assert (summary.files, summary.failures) == (2, ())
    assert verify(folder, summary.outputs) == []
    _, plain = encode(codec, tmp_path / 'latents', items, format='npz')
    for name, latents in plain.items():
        tokens = stored.get(name) or stored[f'{name}.wav']
        assert (tokens.kind, tokens.levels, tokens.scale) == ('tokens', 11, 1.0)
        assert tokens.latents.dtype == np.uint8
        np.testing.assert_array_equal(tokens.latents, codec.to_tokens(latents.latents))
        assert tokens.chunk_offsets == latents.chunk_offsets
        assert tokens.samples == latents.samples
    decoded, audio = decode(
        codec, tmp_path / 'audio', latent_items(str(folder), '/nowhere'), overlap_seconds=0
    )
    assert (decoded.files, decoded.failures, decoded.warnings) == (2, (), ())
    for waveform in audio.values():
        (tokens,) = [t for t in stored.values() if len(t.latents) == len(waveform)]
        options = {'max_waveform_length': 16 * STEP}
        expected = codec.decode(codec.from_tokens(tokens.latents), **options)
        assert_near(waveform, expected[:, : tokens.samples])


def make_tokens(model='ab12', **fields):
    tokens = np.random.default_rng(0).integers(0, 11, (2, WIDTH, 9), np.uint8)
    defaults = {'sample_rate': 44_100, 'samples': 9 * STEP + REACH, 'scale': 1.0, 'model': model}
    return StoredLatents(tokens, **defaults | {'kind': 'tokens', 'levels': 11} | fields)


@pytest.mark.parametrize('suffix', ['.npz', '.npy'])
def test_a_file_of_tokens_is_read_as_written(tmp_path, suffix):
    write_latents(tmp_path / f'a{suffix}', make_tokens())
    stored = read_latents(tmp_path / f'a{suffix}')
    np.testing.assert_array_equal(stored.latents, make_tokens().latents)
    for field in dataclasses.fields(stored)[1:]:
        assert getattr(stored, field.name) == getattr(make_tokens(), field.name)


def test_other_files_say_nothing_of_levels(tmp_path):
    latents = make_tokens().latents.astype(np.float32)
    write_latents(tmp_path / 'a.npy', StoredLatents(latents, 44_100, 9000, 0.06, 'ab12'))
    assert 'levels' not in json.loads((tmp_path / 'a.npy.json').read_text())
    write_latents(tmp_path / 'a.npz', StoredLatents(latents, 44_100, 9000, 0.06, 'ab12'))
    assert 'levels' not in np.load(tmp_path / 'a.npz').files


def item(path):
    return Item(path.name, str(path), path.stat().st_size)


@pytest.mark.parametrize('dtype', [np.int64, np.uint8])
def test_tokens_of_a_language_model_are_decoded(codec, tmp_path, dtype):
    tokens = make_tokens().latents[:1].astype(dtype)
    np.savez(tmp_path / 'a.npz', latents=tokens, levels=11)
    summary, audio = decode(codec, tmp_path / 'out', [item(tmp_path / 'a.npz')])
    assert (summary.failures, summary.warnings) == ((), ())
    assert_near(audio['a.wav'], codec.decode(codec.from_tokens(tokens)))
    batch = np.stack([tokens, tokens[:, :, ::-1]])
    np.save(tmp_path / 'b.npy', batch)
    (tmp_path / 'b.npy.json').write_text(json.dumps({'levels': 11.0}))
    summary, audio = decode(codec, tmp_path / 'out', [item(tmp_path / 'b.npy')])
    assert (summary.failures, summary.warnings) == ((), ())
    for number, each in enumerate(batch):
        assert_near(audio[f'b-{number}.wav'], codec.decode(codec.from_tokens(each)))


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (
            {},
            'holds int64: latents are floating-point numbers; tokens need their levels in the file',
        ),
        ({'levels': 8}, 'its tokens have 8 levels, and those of this model 11: pass the check'),
        ({'levels': 300}, "kind is 'tokens' and levels is 300"),
        ({'levels': 11, 'kind': 'latents'}, "kind is 'latents' and levels is 11"),
        ({'kind': 'tokens'}, "kind is 'tokens' and levels is None"),
        ({'levels': 11, 'model': 'other'}, 'was encoded by model other, this checkpoint is'),
    ],
)
def test_wrong_tokens_are_refused_in_a_line(codec, tmp_path, fields, message):
    np.savez(tmp_path / 'a.npz', latents=np.full((1, WIDTH, 9), 3), **fields)
    assert message in refusal(codec, tmp_path / 'a.npz')


def refusal(codec, path):
    summary, audio = decode(codec, path.parent / 'out', [item(path)])
    assert audio == {}
    ((name, reason),) = summary.failures
    assert name == path.name
    assert path.name in reason
    assert '\n' not in reason
    return reason


def test_tokens_beyond_the_levels_or_that_are_no_integers_are_refused(codec, tmp_path):
    path = tmp_path / 'a.npz'
    np.savez(path, latents=np.full((1, WIDTH, 9), 11), levels=11)
    assert 'holds tokens from 11 to 11: those of 11 levels are 0 to 10' in refusal(codec, path)
    np.savez(path, latents=np.full((1, WIDTH, 9), 1.0), levels=11)
    assert 'tokens are integers, not float64' in refusal(codec, path)


def test_a_continuous_model_decodes_no_tokens(tmp_path):
    codec = make_codec(small_model.CONFIG)
    for more in ({}, {'model': 'other'}):
        np.savez(tmp_path / 'a.npz', latents=np.full((1, WIDTH, 9), 3), levels=11, **more)
        reason = refusal(codec, tmp_path / 'a.npz')
        assert "a.npz holds tokens, and this model has none, its bottleneck 'tanh'" in reason
        assert reason.endswith('pass the checkpoint that they are of')


def test_stored_tokens_beyond_their_levels_are_a_problem(tmp_path):
    path = tmp_path / 'a.npz'
    write_latents(path, make_tokens(levels=7))
    ((name, reason),) = verify(tmp_path, [describe_output(tmp_path, path.name, 1)])
    assert name == 'a.npz'
    assert 'holds tokens from 0 to 10: those of 7 levels are 0 to 6' in reason


def test_an_array_of_another_type_than_its_kind_is_refused():
    with pytest.raises(ValueError, match='the tokens are not uint8'):
        store.check(dataclasses.replace(make_tokens(), latents=np.zeros((1, WIDTH, 2))))
    with pytest.raises(ValueError, match='the latents are not float32'):
        store.check(dataclasses.replace(make_tokens(), kind='latents', levels=None))

"""Exports, run in processes without this package, against the codec that they were made of."""

import dataclasses
import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from benchmarks.small_model import random_params
from m2l_jax.codec.batches import chunk_rows
from m2l_jax.codec.chunks import Chunk, Chunking
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.exporting.folder import FORMATS, export_codec
from m2l_jax.exporting.functions import export_functions
from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import Music2Latent
from tests.commands.test_commands import assert_told, run_python
from tests.commands.tiny import MODEL
from tests.conftest import largest_file, make_music, on_one_device

CONFIG = dataclasses.replace(MODEL, attention=(False, True), attention_heads=2)
STEP, REACH, WIDTH = 128, 192, 5
RATE = CONFIG.spectrogram.sample_rate
LENGTHS = (10, 7)  # of two rows of a batch
VECTORS, CHUNK = 11, 4  # of a song, and of its chunks: its start completes the last
SEED, BEGIN = 2**32 - 1, 3

# Runs the README's own lines, as they are and in chunks of few vectors, then what a test gives.
PROGRAM = """
import os, sys
for package in ('m2l_jax', 'flax', 'optax', {absent}):
    sys.modules[package] = None
use = open('use.py').read()
exec(use.replace('CHUNK = ', 'CHUNK = {chunk} or '))
os.rename('restored.wav', 'chunks.wav')
exec(use)
given = dict(np.load('given.npz'))
pieces = np.pad(given['waveform'], ((0, 0), (0, {reach})))
latents = encode(pieces, given['lengths'], given['lengths'])
four = given['lengths'][:1] * 0 + 4
one = encode(pieces[:1, : 4 * {step} + 2 * {reach}], four, four)
rows = (given[name] for name in ('lengths', 'seeds', 'channels', 'positions'))
waveform = decode(given['latents'], *rows)
np.savez('result.npz', latents=latents, one=one, waveform=waveform)
"""


def song(channels):
    """A song that ends within its last vector."""
    return make_music(1, channels=channels)[:, : VECTORS * STEP - STEP // 2]


def lines_of_readme(folder):
    (lines,) = re.findall(r'```python\n(.*?)```', (folder / 'README.md').read_text(), re.DOTALL)
    return lines


@pytest.fixture(scope='module')
def codec():
    return EncoderDecoder.from_params(
        Music2Latent(CONFIG),
        jax.tree.map(lambda leaf: 3 * leaf, random_params(CONFIG)),  # audible
        devices=jax.local_devices()[:1],
    )


@pytest.fixture(scope='module')
def given():
    random = np.random.default_rng(0)
    latents = random.standard_normal((2, WIDTH, LENGTHS[0])).astype(np.float32)
    latents[1, :, LENGTHS[1] :] = 0
    audio = make_music(1, channels=2)[:, : LENGTHS[0] * STEP + REACH].copy()
    audio[1, LENGTHS[1] * STEP + REACH :] = 0
    return {
        'waveform': audio,
        'latents': latents,
        'lengths': np.asarray(LENGTHS, np.int32),
        'seeds': np.full(2, SEED, np.uint32),
        'channels': np.asarray([0, 1], np.int32),
        'positions': np.tile(np.arange(LENGTHS[0], dtype=np.int32), (2, 1)),
    }


@pytest.fixture(scope='module', params=FORMATS)
def exported(request, codec, given, tmp_path_factory):
    """A folder, and what its programs make of `given` in a process of their own."""
    folder = tmp_path_factory.mktemp('exported') / 'new' / request.param
    size = export_codec(codec, folder, request.param, ('cpu', 'cuda', 'tpu'))
    assert size == sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())
    (folder / 'use.py').write_text(lines_of_readme(folder))
    soundfile.write(folder / 'song.wav', song(channels=2).T, RATE)
    np.savez(folder / 'given.npz', **given)
    absent = {'stablehlo': "'tensorflow'", 'saved_model': "'jax'"}[request.param]
    program = PROGRAM.format(absent=absent, step=STEP, reach=REACH, chunk=CHUNK)
    run = subprocess.run(
        [sys.executable, '-I', '-c', program],
        cwd=folder,
        env=on_one_device(),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return folder, np.load(folder / 'result.npz')


def test_latents_are_those_of_the_codec(codec, given, exported):
    _, result = exported
    for row, length in enumerate(LENGTHS):
        audio = given['waveform'][row, : length * STEP + REACH]
        expected = codec.encode(audio)[0]
        np.testing.assert_allclose(result['latents'][row, :, :length], expected, atol=1e-5)
    expected = codec.encode(given['waveform'][0, : 4 * STEP + REACH])
    np.testing.assert_allclose(result['one'], expected, atol=1e-5)


def test_audio_is_that_of_the_codec_with_the_same_seed(codec, given, exported):
    _, result = exported
    assert result['waveform'].shape == (2, LENGTHS[0] * STEP + REACH)
    first = codec.decode(given['latents'], seed=SEED)[0]
    second = codec.decode(given['latents'][..., : LENGTHS[1]], seed=SEED)[1]
    np.testing.assert_allclose(result['waveform'][0], first, atol=1e-5)
    np.testing.assert_allclose(result['waveform'][1, : len(second)], second, atol=1e-5)
    assert not result['waveform'][1, len(second) :].any()
    assert np.abs(first).max() > 0.03


@pytest.mark.parametrize(('name', 'chunk'), [('restored', VECTORS), ('chunks', CHUNK)])
def test_the_readme_restores_a_song_as_the_codec_does(codec, exported, name, chunk):
    folder, _ = exported
    audio, _ = soundfile.read(folder / 'song.wav', dtype='float32')
    latents = codec.encode(codec.pad(audio.T), chunk * STEP)
    expected = codec.decode(latents, max_waveform_length=chunk * STEP)[:, : len(audio)]
    restored, rate = soundfile.read(folder / f'{name}.wav', dtype='float32')
    assert rate == RATE
    np.testing.assert_allclose(restored.T, expected, atol=1e-4)  # 16 bits
    assert np.load(folder / 'latents.npy').shape == latents.shape == (2, WIDTH, VECTORS)


def test_the_manifest_says_what_a_program_takes(codec, exported):
    folder, _ = exported
    manifest = json.loads((folder / 'manifest.json').read_text())
    assert manifest['model'] == codec.model_id
    assert manifest['scale'] == 0.06
    assert (manifest['samples_per_latent'], manifest['reach']) == (STEP, REACH)
    assert manifest['platforms'] == ['cpu', 'cuda', 'tpu']
    decode = manifest['functions']['decode']
    shapes = [each['shape'] for each in decode['arguments']]
    assert shapes == [f'b, {WIDTH}, l', 'b', 'b', 'b', 'b, l']
    assert decode['result']['shape'] == f'b, {STEP}*l + {REACH}'


def test_a_chunk_has_the_noise_of_its_place(codec, given):
    """The same vectors at another place in a piece decode to other audio."""
    _, decode = export_functions(Music2Latent(codec.config), codec.params, 1)
    latents = given['latents'][:1]
    ones = np.ones(1, np.int32)
    positions = np.arange(BEGIN, BEGIN + LENGTHS[0], dtype=np.int32)[None]
    rows = ones * LENGTHS[0], ones.astype(np.uint32) * SEED, ones * 0, positions
    decoded = np.asarray(jax.jit(decode.call)(decode.weights, latents, *rows))[0]
    chunk = Chunk(BEGIN, BEGIN + LENGTHS[0])
    (expected,) = codec.decode_rows(chunk_rows(latents, chunk), Chunking(16), 1, 1, SEED)
    np.testing.assert_allclose(decoded, np.clip(expected, -1, 1), atol=1e-5)
    assert np.abs(decoded - codec.decode(latents, seed=SEED)[0]).max() > 1e-4


def test_a_stereo_row_has_both_channels(tmp_path, monkeypatch):
    config = dataclasses.replace(
        CONFIG, channels=4, stereo='mid_side', bottleneck='fsq', levels=201
    )
    stereo = EncoderDecoder.from_params(
        Music2Latent(config), random_params(config), devices=jax.local_devices()[:1]
    )
    export_codec(stereo, tmp_path / 'exported', platforms=['cpu'])
    monkeypatch.chdir(tmp_path / 'exported')
    audio = song(channels=1)
    soundfile.write('song.wav', audio.T, RATE, subtype='FLOAT')
    made = {}
    exec(lines_of_readme(tmp_path / 'exported'), made)
    np.testing.assert_allclose(made['latents'], stereo.encode(stereo.pad(audio)), atol=1e-5)
    np.testing.assert_allclose(made['restored'], stereo.reconstruct(audio), atol=1e-5)
    assert made['restored'].shape == (2, audio.shape[1])
    audio = stereo.pad(song(channels=2))
    pieces = np.pad(audio, ((0, 0), (0, REACH)))[None]
    encoded = made['encode'](pieces, made['lengths'], made['lengths'])
    np.testing.assert_allclose(encoded, stereo.encode(audio), atol=1e-5)
    readme = (tmp_path / 'exported' / 'README.md').read_text()
    to_tokens, to_latents = re.findall(r'`(np.rint.*?|\(tokens / .*?)`', readme)
    tokens = eval(to_tokens, made)
    np.testing.assert_array_equal(tokens, stereo.to_tokens(made['latents']))
    latents = eval(to_latents, {'tokens': tokens})
    np.testing.assert_allclose(latents, stereo.from_tokens(tokens), rtol=1e-5)


def test_weights_are_float32_whatever_the_parameters_are(codec):
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), codec.params)
    for function in export_functions(Music2Latent(CONFIG), params, 1):
        assert {array.dtype for array in function.weights.values()} == {np.dtype('float32')}


def test_a_folder_that_holds_something_is_left_alone(codec, tmp_path):
    (tmp_path / 'mine').write_text('mine')
    with pytest.raises(InputError, match='exists and is no empty folder: choose another --output'):
        export_codec(codec, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['mine']


def test_a_full_disk_leaves_nothing(codec, tmp_path):
    with largest_file(10_000), pytest.raises(InputError, match='cannot be written'):
        export_codec(codec, tmp_path / 'new' / 'exported', platforms=['cpu'])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'format': 'onnx'}, "format='onnx' must be one of stablehlo, saved_model"),
        ({'platforms': ['cpu', 'gpu']}, "platforms='cpu,gpu' must be of cpu, cuda, rocm, tpu"),
        ({'platforms': 'cpu,gpu'}, "platforms='cpu,gpu' must be of cpu, cuda, rocm, tpu"),
        ({'platforms': []}, "platforms='' must be of cpu"),
        ({'dtype': 'float16'}, "dtype='float16' must be one of float32, bfloat16"),
        ({'denoising_steps': 0}, 'denoising_steps=0 must be at least 1'),
    ],
)
def test_wrong_arguments_are_named(codec, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        export_codec(codec, tmp_path / 'exported', **options)
    assert not list(tmp_path.iterdir())


def test_the_command_tells_of_a_checkpoint_that_is_not_there(tmp_path):
    flags = f'--checkpoint={tmp_path / "none.pt"}', f'--output={tmp_path / "out"}'
    assert_told(run_python('-m', 'm2l_jax.export', *flags), 'does not exist')
    assert not list(tmp_path.iterdir())

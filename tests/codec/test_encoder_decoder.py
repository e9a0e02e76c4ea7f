import dataclasses
import functools
import io
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from jax.sharding import PartitionSpec

from benchmarks import small_model
from m2l_jax.audio.spectrogram import to_spectrogram
from m2l_jax.codec.batches import LatentRow
from m2l_jax.codec.chunks import Chunk, Chunking
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.codec.rows import decoding_noise, encode_waveforms, waveform_samples
from m2l_jax.compilation.collectives import find_collectives
from m2l_jax.interface.errors import InputError
from m2l_jax.model import ops
from m2l_jax.model.autoencoder import Music2Latent
from tests.conftest import make_music
from tests.model.test_layers import perturbed


def snr(actual, expected):
    return -20 * np.log10(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


@pytest.fixture(scope='module')
def codec(tiny_config, tiny_params):
    return EncoderDecoder.from_params(Music2Latent(tiny_config), tiny_params)


@functools.partial(jax.jit, static_argnums=(0, 3))
def apply_alone(model, params, spectrogram, method):
    return model.apply({'params': params}, spectrogram, method=method)


def test_latents_are_the_models_scaled_and_channel_major(codec):
    music = make_music(0.5, channels=2)
    latents = codec.encode(music)
    assert latents.shape == (2, 8, (22_050 - 1536) // 4096)
    spectrogram = to_spectrogram(jnp.asarray(music), codec.config.spectrogram)[:, :, :40]
    expected = apply_alone(Music2Latent(codec.config), codec.params, spectrogram, 'encode')
    np.testing.assert_allclose(latents * 0.06, expected.swapaxes(1, 2), atol=1e-5)


def test_nothing_is_dropped_of_padded_audio(codec):
    for samples in (1, 4096, 4097, 20_000):
        padded = codec.pad(np.ones((1, samples), np.float32))
        restored = codec.decode(codec.encode(padded))
        assert restored.shape == padded.shape
        assert restored.shape[1] >= samples


def test_seed_decides_the_output(codec):
    latents = codec.encode(make_music(0.5))
    one = codec.decode(latents, seed=1)
    np.testing.assert_array_equal(one, codec.decode(latents, seed=1))
    assert np.any(one != codec.decode(latents, seed=2))
    assert np.any(one != codec.decode(latents, denoising_steps=2, seed=1))


def test_chunks_and_batches(codec):
    music = make_music(0.5, channels=2)
    cut = {'max_waveform_length': 2 * 4096}
    latents = codec.encode(music, **cut)
    assert latents.shape == (2, 8, 5)
    second = codec.encode(music[:, 2 * 4096 : 4 * 4096 + 1536])
    np.testing.assert_allclose(latents[..., 2:4], second, atol=1e-4)
    # How many rows are computed at once changes nothing.
    for rows in (2, 4, 100):
        batched = codec.encode(music, **cut, max_batch_size=rows)
        np.testing.assert_allclose(batched, latents, atol=1e-4)
    waveform = codec.decode(latents, **cut)
    assert waveform.shape == (2, 5 * 4096 + 1536)
    batched = codec.decode(latents, **cut, max_batch_size=4)
    np.testing.assert_allclose(batched, waveform, atol=1e-4)


def test_features_are_those_of_the_model(codec):
    music = make_music(0.5)
    features = codec.encode(music, extract_features=True)
    assert features.shape == (1, codec.config.feature_channels, 5)
    spectrogram = to_spectrogram(jnp.asarray(music), codec.config.spectrogram)[:, :, :40]
    expected = apply_alone(Music2Latent(codec.config), codec.params, spectrogram, 'features')
    np.testing.assert_allclose(features, expected.swapaxes(1, 2), atol=1e-4)


def test_bfloat16_stays_near_float32(in_strips, monkeypatch, codec):
    """With all products rounded, of a processor that multiplies bfloat16."""
    monkeypatch.setattr(ops, 'multiplies_bfloat16', lambda: True)
    model = Music2Latent(codec.config)
    half = EncoderDecoder.from_params(model, codec.params, dtype='bfloat16')
    music = make_music(0.5)
    exact = EncoderDecoder.from_params(model, codec.params).encode(music)
    rounded = half.encode(music)
    assert half.config.dtype == 'bfloat16'
    assert rounded.dtype == np.float32
    relative = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    assert 1e-4 < relative <= 10 ** (-35 / 20)


def test_bfloat16_is_float32_where_the_processor_does_not_multiply_it(monkeypatch, codec):
    monkeypatch.setattr(ops, 'multiplies_bfloat16', lambda: False)
    half = EncoderDecoder.from_params(Music2Latent(codec.config), codec.params, dtype='bfloat16')
    music = make_music(0.5)
    latents = half.encode(music)
    np.testing.assert_array_equal(latents, codec.encode(music))
    np.testing.assert_array_equal(half.decode(latents), codec.decode(latents))


def test_float32_is_multiplied_in_full_on_every_device(codec):
    for dtype, asked in (('float32', True), ('bfloat16', False)):
        model = Music2Latent(dataclasses.replace(codec.config, dtype=dtype))
        waveforms = jnp.zeros((1, waveform_samples(model.config, 1)))
        program = jax.jit(functools.partial(encode_waveforms, model))
        lowered = program.lower(codec.params, waveforms, jnp.ones(1), jnp.ones(1)).as_text()
        assert ('precision = [HIGHEST, HIGHEST]' in lowered) == asked


def test_a_minute_is_645_latents(codec):
    assert codec.chunking() == Chunking(645)
    assert codec.chunking(44_100, 4097) == Chunking(10, 2)


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ({'max_waveform_length': 4095}, 'max_waveform_length=4095 must be at least 4096 samples'),
        ({'overlap': -1}, 'overlap=-1 must be from 0 to 1318912 samples, half a chunk'),
        (
            {'max_waveform_length': 20_480, 'overlap': 8193},
            'overlap=8193 must be from 0 to 8192 samples',
        ),
        ({'max_batch_size': 0}, 'max_batch_size=0 must be at least 1'),
        ({'max_batch_size': 2.5}, 'max_batch_size=2.5 must be a whole number'),
        ({'max_waveform_length': 44_100.0}, 'max_waveform_length=44100.0 must be a whole number'),
        ({'overlap': 4096.0}, 'overlap=4096.0 must be a whole number'),
    ],
)
def test_bad_options_are_told(codec, option, message):
    with pytest.raises(InputError, match=message):
        codec.encode(make_music(0.5), **option)


def test_other_parameters_share_the_model(codec):
    zeros = jax.tree.map(jnp.zeros_like, codec.params)
    assert not np.any(codec.with_params(zeros).encode(make_music(0.5)))
    assert np.any(codec.encode(make_music(0.5)))


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ({'denoising_steps': 0}, 'denoising_steps=0 must be at least 1'),
        ({'denoising_steps': 2.0}, 'denoising_steps=2.0 must be a whole number'),
        ({'denoising_steps': True}, 'denoising_steps=True must be a whole number'),
        ({'seed': 2**63}, 'seed=9223372036854775808 must be from 0 to 4294967295'),
        ({'seed': 2**32}, 'seed=4294967296 must be from 0 to 4294967295'),
        ({'seed': -1}, 'seed=-1 must be from 0 to 4294967295'),
    ],
)
def test_bad_options_of_decoding_are_told(codec, option, message):
    with pytest.raises(InputError, match=message):
        codec.decode(np.zeros((1, 8, 2), np.float32), **option)
    with pytest.raises(InputError, match=message):
        codec.reconstruct(make_music(0.2), **option)


def test_numbers_of_numpy_are_taken(codec):
    latents = codec.encode(make_music(0.2), np.int64(44_100), np.int32(2))
    decoded = codec.decode(latents, np.int64(1), seed=np.uint32(2**32 - 1))
    np.testing.assert_array_equal(decoded, codec.decode(latents, seed=2**32 - 1))


def test_all_that_takes_audio_takes_the_same(codec, tmp_path):
    music = make_music(0.3)
    path = tmp_path / 'a.wav'
    soundfile.write(path, music[0], 44_100, 'FLOAT')
    expected = codec.reconstruct(music)
    assert expected.shape == music.shape
    for audio in (path, str(path), io.BytesIO(path.read_bytes()), music[0], (44_100, music)):
        np.testing.assert_array_equal(codec.reconstruct(audio), expected)
    np.testing.assert_array_equal(codec.pad(path), codec.pad(music))
    np.testing.assert_array_equal(codec.encode((music[0], 44_100)), codec.encode(path))


def test_one_piece_for_several_is_told(codec):
    for audio in ('a.wav', b'a.wav', pathlib.Path('a.wav'), io.BytesIO(), None):
        with pytest.raises(InputError, match='encode_batch takes a list of pieces, not one'):
            codec.encode_batch(audio)
    batch = np.stack([make_music(0.2, seed=seed) for seed in range(2)])
    for latents, music in zip(codec.encode_batch(batch), batch, strict=True):
        np.testing.assert_allclose(latents, codec.encode(music), atol=1e-4)


def test_the_fingerprint_is_of_sizes_and_parameters_and_not_of_the_dtype(codec):
    same = EncoderDecoder.from_params(Music2Latent(codec.config), codec.params, dtype='bfloat16')
    assert same.model_id == codec.model_id
    config = dataclasses.replace(codec.config, attention_heads=1)
    other = EncoderDecoder.from_params(Music2Latent(config), codec.params)
    assert other.model_id != codec.model_id
    zeros = jax.tree.map(jnp.zeros_like, codec.params)
    assert codec.with_params(zeros).model_id != codec.model_id


def test_the_fingerprint_is_not_of_fields_that_change_no_number_by_more_than_rounding():
    def fingerprint(**fields):
        config = dataclasses.replace(small_model.CONFIG, attention=(False, True, True), **fields)
        params = small_model.random_params(config.defining)
        return EncoderDecoder.from_params(Music2Latent(config), params).model_id

    assert fingerprint() == '443856e58467eb77'  # as it ever was
    assert fingerprint(remat=True, param_dtype='bfloat16') == fingerprint()
    assert fingerprint(latents_of=('an id',)) == fingerprint()


def test_too_short_audio_is_told(codec):
    with pytest.raises(InputError, match='5631 samples are too few to encode: 5632 at least'):
        codec.encode(np.zeros((1, 5631), np.float32))
    assert codec.encode(np.zeros((1, 5632), np.float32)).shape == (1, 8, 1)


@pytest.fixture(scope='module')
def lively(codec):
    """With random parameters in all layers, so that everything counts."""
    return codec.with_params(perturbed(codec.params, 0.1))


def test_audio_of_any_lengths_shares_batches_and_programs(lively):
    random = np.random.default_rng(0)
    music = make_music(1.0, channels=2, seed=3)
    lengths = [5632, 44_100, *random.integers(5632, 44_100, 10)]
    cuts = [music[: 1 + index % 2, :length] for index, length in enumerate(lengths)]
    together = lively.encode_batch(cuts, max_batch_size=4)
    compiled = lively._encode_program._cache_size()
    again = lively.encode_batch(cuts[::-1], max_batch_size=4)
    assert lively._encode_program._cache_size() == compiled
    model = Music2Latent(lively.config)
    for audio, latents, later in zip(cuts, together, again[::-1], strict=True):
        frames = latents.shape[2] * lively.config.time_downsampling
        spectrogram = to_spectrogram(jnp.asarray(audio), lively.config.spectrogram)[:, :, :frames]
        alone = [apply_alone(model, lively.params, row[None], 'encode')[0] for row in spectrogram]
        assert snr(latents * 0.06, np.swapaxes(alone, 1, 2)) >= 95
        assert snr(later, latents) >= 95


def test_a_piece_is_decoded_in_a_longer_batch_as_alone(lively):
    latents = np.random.default_rng(1).standard_normal((1, 8, 11)).astype(np.float32)
    padded = lively.decode(latents)  # to twelve
    row = LatentRow(Chunk(0, 11), latents[0], 0)
    (alone,) = lively.decode_rows([row], Chunking(11), 1, steps=1, seed=0)
    assert snr(padded[0], np.clip(alone, -1, 1)) >= 90


@pytest.fixture(scope='module')
def shared(lively):
    """The same model on four devices."""
    devices = jax.local_devices()
    return EncoderDecoder.from_params(Music2Latent(lively.config), lively.params, devices=devices)


def test_several_devices_share_the_rows(lively, shared):
    assert len(jax.tree.leaves(shared.params)[0].sharding.device_set) == shared.devices == 4
    music = [make_music(0.3 + 0.05 * n, seed=n) for n in range(5)]
    for features in (False, True):
        one = lively.encode_batch(music, extract_features=features)
        four = shared.encode_batch(music, extract_features=features)
        for expected, encoded in zip(one, four, strict=True):
            assert snr(encoded, expected) >= 95
    latents = lively.encode(make_music(0.5, channels=2))
    assert snr(shared.decode(latents, 2), lively.decode(latents, 2)) >= 90


def test_devices_that_share_the_rows_send_each_other_nothing(shared):
    config, rows = shared.config, PartitionSpec('data')
    counts = np.ones(4, np.int32)
    waveforms = np.zeros((4, waveform_samples(config, 1)), np.float32)
    latents = np.zeros((4, config.latent_channels, 1), np.float32)
    keys = jax.random.split(jax.random.key(0), 4)
    audio = shared._put((waveforms, counts, counts), rows)
    noise = shared._put((latents, keys, counts[:, None], counts, counts), rows)
    for lowered in (
        shared._encode_program.lower(shared.params, *audio, method='encode'),
        shared._encode_program.lower(shared.params, *audio, method='features'),
        shared._decode_program.lower(shared.params, *noise, steps=2),
    ):
        compiled = lowered.compile()
        assert find_collectives(compiled.as_text()) == []
        assert compiled.output_shardings.spec == rows


def test_chunks_that_overlap_begin_from_the_same_noise(lively):
    keys = jax.random.split(jax.random.key(0), 1)
    chunks = Chunking(10, 3).cut(21)
    first, second = (decoding_noise(lively.config, keys, c.positions[None], 0) for c in chunks[:2])
    np.testing.assert_array_equal(first[:, :, 7 * 8 :], second[:, :, : 3 * 8])
    assert np.any(first[:, :, :8] != first[:, :, 8:16])
    latents = np.zeros((1, 8, 21), np.float32)
    decoded = lively.decode(latents, max_waveform_length=10 * 4096, overlap=3 * 4096)
    assert decoded.shape == (1, 21 * 4096 + 1536)


def test_latents_of_chunks_that_overlap_are_of_their_middles(lively):
    music = make_music(1.5)
    latents = lively.encode(music, max_waveform_length=8 * 4096, overlap=4 * 4096)
    assert latents.shape == (1, 8, (66_150 - 1536) // 4096)
    first = lively.encode(music[:, : 8 * 4096 + 1536])
    second = lively.encode(music[:, 4 * 4096 : 12 * 4096 + 1536])
    assert snr(latents[..., :6], first[..., :6]) >= 95
    assert snr(latents[..., 6:10], second[..., 2:6]) >= 95


def test_an_overlap_always_has_room_for_a_fade():
    """Also where a latent vector is shorter than what a frame reaches beyond its hop."""
    config = small_model.CONFIG  # 1024 samples a vector, frames reach 1536
    model = Music2Latent(config)
    codec = EncoderDecoder.from_params(model, {})
    assert codec.chunking(44_100, 1) == Chunking(43, 2)
    assert codec.chunking(44_100, 0) == Chunking(43)
    with pytest.raises(InputError, match='max_waveform_length=3072 is too short for chunks to'):
        codec.chunking(3072, 1)

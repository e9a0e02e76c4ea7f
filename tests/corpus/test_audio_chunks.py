import itertools

import numpy as np
import pytest

from benchmarks import small_model
from m2l_jax.codec.chunks import Chunking
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.codec.mixing import mix, mixed_channels, unmix
from m2l_jax.corpus.encode import chunk_rows
from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import Music2Latent

STEP, REACH = 1024, 1536


@pytest.fixture
def codec(monkeypatch):
    """Only its counts are asked for: no parameters are needed."""
    monkeypatch.setattr(
        'm2l_jax.codec.encoder_decoder.EncoderDecoder._put', lambda self, tree, spec: None
    )
    return EncoderDecoder.from_params(Music2Latent(small_model.CONFIG), {})


def random_audio(channels, samples):
    """In 16 bits, as most files hold it."""
    numbers = np.random.default_rng(0).integers(-(2**15), 2**15, (channels, samples))
    return (numbers / 2**15).astype(np.float32)


def test_mid_and_side_are_half_the_sum_and_half_the_difference():
    mixed = mix(np.array([[1.0, 0.5], [0.5, -0.5]], np.float32), 'mid_side')
    np.testing.assert_array_equal(mixed, [[0.75, 0], [0.25, 0.5]])
    assert mixed_channels(2, 'mid_side') == 2


@pytest.mark.parametrize(('mode', 'channels'), [('each', 3), ('mid_side', 2), ('mid_side', 1)])
def test_left_and_right_come_back_exactly(mode, channels):
    audio = random_audio(channels, 10_000)
    mixed = mix(audio, mode)
    assert mixed.dtype == np.float32
    assert len(mixed) == mixed_channels(channels, mode)
    np.testing.assert_array_equal(unmix(mixed, mode), audio)


def test_mono_is_the_mean_of_any_number():
    for channels in (1, 2, 5):
        audio = random_audio(channels, 100)
        mixed = mix(audio, 'mono')
        assert mixed.dtype == np.float32
        assert mixed.shape == (mixed_channels(channels, 'mono'), 100) == (1, 100)
        np.testing.assert_allclose(mixed[0], audio.sum(axis=0) / channels, atol=1e-6)
    np.testing.assert_array_equal(unmix(mixed, 'mono'), mixed)


def test_of_more_than_two_channels_there_is_no_mid():
    assert mixed_channels(6, 'each') == 6
    with pytest.raises(InputError, match='3 channels have no mid and side: take --channels=each'):
        mixed_channels(3, 'mid_side')


@pytest.mark.parametrize('block', [700, STEP, 5 * STEP + 17, 10**6])
@pytest.mark.parametrize('chunking', [Chunking(6), Chunking(6, 2)])
@pytest.mark.parametrize('missing', [-900, 0, 1000], ids=['longer', 'even', 'shorter'])
def test_rows_are_slices_of_the_whole(codec, block, chunking, missing):
    chunks = chunking.cut(15)
    needed = 15 * STEP + REACH
    audio = random_audio(2, needed - missing)
    blocks = (audio[:, begin : begin + block] for begin in range(0, audio.shape[1], block))
    cut = list(chunk_rows(codec, blocks, chunks))
    whole = np.pad(audio, ((0, 0), (0, max(0, missing))))
    assert len(cut) == len(chunks)
    for rows, chunk in zip(cut, chunks, strict=True):
        assert len(rows) == 2
        for row, channel in zip(rows, whole, strict=True):
            assert row.chunk is chunk
            expected = [channel[chunk.begin * STEP : chunk.end * STEP + REACH]]
            if chunk.wrapped:
                expected.append(channel[: chunk.wrapped * STEP + REACH])
            assert len(row.pieces) == len(expected)
            for piece, values in zip(row.pieces, expected, strict=True):
                np.testing.assert_array_equal(piece, values)


def test_what_is_shorter_than_a_chunk_is_one(codec):
    audio = random_audio(1, 3 * STEP + REACH + 5)
    ((row,),) = chunk_rows(codec, iter([audio]), Chunking(6).cut(3))
    (piece,) = row.pieces
    np.testing.assert_array_equal(piece, audio[0, :-5])


def test_blocks_are_read_as_they_are_wanted(codec):
    read = itertools.count()
    blocks = (random_audio(1, STEP) for _ in read)
    rows = chunk_rows(codec, blocks, Chunking(4).cut(1000))
    next(rows)
    assert next(read) == 6  # four, and two for the reach
    next(rows)
    assert next(read) == 11  # of which this test has taken one

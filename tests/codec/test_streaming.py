"""Decoding while latents arrive, against decoding all of them at once."""

import gc
import weakref

import jax
import numpy as np
import pytest

from benchmarks import small_model
from m2l_jax.codec.chunks import Chunking
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.codec.streaming import cut_stream
from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import Music2Latent

STEP, REACH = 1024, 1536
SIZE, OVERLAP = 10, 3
OPTIONS = {'max_waveform_length': SIZE * STEP, 'overlap': OVERLAP * STEP}


@pytest.fixture(scope='module')
def codec():
    return EncoderDecoder.from_params(
        Music2Latent(small_model.CONFIG),
        small_model.random_params(),
        devices=jax.local_devices()[:1],
    )


def make_latents(frames, channels=1):
    shape = channels, 8, frames
    return np.random.default_rng(frames).standard_normal(shape).astype(np.float32)


def in_pieces(latents, sizes):
    """Arrays of these many vectors, the last size again and again."""
    begin = 0
    while begin < latents.shape[-1]:
        size = sizes[0]
        sizes = sizes[1:] or sizes
        yield latents[..., begin : begin + size]
        begin += size


@pytest.mark.parametrize('overlap', [0, 3, 5])
@pytest.mark.parametrize('sizes', [[1], [0, 7, 1, 23, 4], [1000]])
def test_a_stream_is_cut_as_the_whole_is(overlap, sizes):
    chunking = Chunking(SIZE, overlap)
    for total in range(1, 50):
        latents = np.arange(total)[None, None]
        pieces = list(cut_stream(in_pieces(latents, sizes), chunking))
        chunks = chunking.cut(total)
        assert [chunk for chunk, _ in pieces] == chunks
        for chunk, part in pieces:
            np.testing.assert_array_equal(part[0, 0], chunk.positions)


@pytest.mark.parametrize('overlap', [0, OVERLAP * STEP])
@pytest.mark.parametrize(
    ('frames', 'channels', 'sizes', 'steps'),
    [
        (31, 1, [1], 1),  # the last chunk begins early
        (24, 2, [0, 5, 100], 2),  # all chunks are where they would be in a longer stream
        (4, 1, [3], 1),
    ],
)
def test_blocks_are_what_decoding_the_whole_gives(codec, frames, channels, sizes, steps, overlap):
    latents = make_latents(frames, channels)
    options = {**OPTIONS, 'overlap': overlap, 'seed': 7, 'denoising_steps': steps}
    pieces = in_pieces(latents if channels > 1 else latents[0], sizes)
    blocks = list(codec.stream(pieces, **options))
    whole = codec.decode(latents, **options)
    assert whole.shape == (channels, frames * STEP + REACH)
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), whole)


def test_a_batch_of_the_channels_changes_rounding_alone(codec):
    latents = make_latents(17, 2)
    stream = codec.stream([latents], max_batch_size=2, **OPTIONS)
    whole = codec.decode(latents, **OPTIONS)
    np.testing.assert_allclose(np.concatenate(list(stream), axis=1), whole, atol=1e-5)


@pytest.mark.parametrize(('frames', 'beyond'), [(31, []), (33, [(33, 2 * STEP)])])
def test_each_block_comes_as_soon_as_its_latents_have(codec, frames, beyond):
    taken = 0

    def count():
        nonlocal taken
        for piece in in_pieces(make_latents(frames), [1]):
            taken += 1
            yield piece

    told = [(taken, block.shape[1]) for block in codec.stream(count(), **OPTIONS)]
    stride, faded = SIZE - OVERLAP, OVERLAP * STEP - REACH
    first = [(SIZE, SIZE * STEP - faded)]
    regular = [(SIZE + number * stride, stride * STEP) for number in (1, 2, 3)]
    assert told == [*first, *regular, *beyond, (frames, faded + REACH)]


def test_little_is_held_however_long_the_stream(codec):
    alive = []

    def watched(frames):
        for number in range(frames):
            array = make_latents(frames)[..., number : number + 1].copy()
            references.append(weakref.ref(array))
            yield array

    for frames in (40, 160):
        references = []
        alive.append(0)
        for block in codec.stream(watched(frames), **OPTIONS):
            held = sum(reference() is not None for reference in references)
            alive[-1] = max(alive[-1], held)
            assert block.base is None or block.base.nbytes <= 4 * (SIZE * STEP + REACH)
    assert alive[0] == alive[1] <= 2


def test_an_array_may_be_overwritten_once_the_next_is_asked_for(codec):
    latents, vector = make_latents(20), np.zeros((1, 8, 1), np.float32)

    def generate():
        for number in range(20):
            vector[:] = latents[..., number : number + 1]
            yield vector

    blocks = list(codec.stream(generate(), **OPTIONS))
    whole = codec.decode(latents, **OPTIONS)
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), whole)


def test_a_stream_that_is_left_lets_its_source_go(codec):
    ended = []

    def endless():
        try:
            while True:
                yield make_latents(4)
        finally:
            ended.append(True)

    stream = codec.stream(endless(), **OPTIONS)
    next(stream)
    assert not ended
    stream.close()
    gc.collect()
    assert ended == [True]


def test_by_default_chunks_take_four_seconds(codec):
    assert [chunk.length for chunk in codec.chunking(4 * 44_100).cut(10)] == [10]
    taken = []
    stream = codec.stream(
        (taken.append(1) or piece for piece in in_pieces(make_latents(200), [1])),
    )
    next(stream)
    assert len(taken) == 4 * 44_100 // STEP


def test_a_model_that_gives_nan_is_told(codec):
    diverged = codec.with_params(jax.tree.map(lambda leaf: leaf * np.nan, codec.params))
    with pytest.raises(InputError, match='the stream: the model gives NaN'):
        next(diverged.stream([make_latents(10)], **OPTIONS))


@pytest.mark.parametrize(
    ('arrays', 'message'),
    [
        ([], 'the stream holds no latents: pass one array of them at least'),
        ([np.zeros((8, 0))], 'the stream holds no latents: pass one array of them at least'),
        ([make_latents(3), np.zeros((7, 2))], 'array 1 of the stream has shape (7, 2): each'),
        ([make_latents(3), make_latents(3, 2)], 'array 1 of the stream has 2 channels: those'),
        ([np.full((8, 2), np.nan)], 'array 0 of the stream holds NaN or infinity'),
        ([np.zeros((8, 2), int)], 'array 0 of the stream holds int64'),
        ([np.zeros(8)], 'array 0 of the stream has shape (8,)'),
        ([np.zeros((2, 1, 8, 3))], 'array 0 of the stream is a batch of 2'),
    ],
)
def test_what_cannot_be_decoded_is_named(codec, arrays, message):
    with pytest.raises(InputError) as caught:
        list(codec.stream(arrays, **OPTIONS))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'denoising_steps': 0}, 'denoising_steps=0'),
        ({'seed': -1}, 'seed=-1'),
        ({'max_waveform_length': 5}, 'max_waveform_length=5'),
        ({'max_batch_size': 0}, 'max_batch_size=0'),
        ({'overlap': 9 * STEP}, 'overlap=9216'),
    ],
)
def test_arguments_are_checked_before_the_first_block(codec, options, message):
    with pytest.raises(InputError, match=message):
        codec.stream([], **OPTIONS | options)


@pytest.mark.parametrize('latents', [make_latents(4), None, 5])
def test_a_whole_array_is_no_stream(codec, latents):
    with pytest.raises(InputError, match='stream takes arrays one after another'):
        codec.stream(latents)

import numpy as np
import pytest

from m2l_jax.codec.chunks import Chunk, Chunking, bucket


@pytest.mark.parametrize(
    ('total', 'chunks'),
    [
        (3, [Chunk(0, 3)]),
        (4, [Chunk(0, 4)]),
        (5, [Chunk(0, 4), Chunk(4, 5, 3)]),
        (8, [Chunk(0, 4), Chunk(4, 8)]),
        (10, [Chunk(0, 4), Chunk(4, 8), Chunk(8, 10, 2)]),
    ],
)
def test_the_last_chunk_wraps_round(total, chunks):
    assert Chunking(4).cut(total) == chunks


@pytest.mark.parametrize(
    ('total', 'begins'), [(10, [0]), (11, [0, 1]), (17, [0, 7]), (18, [0, 7, 8]), (24, [0, 7, 14])]
)
def test_chunks_that_overlap_are_all_full(total, begins):
    chunks = Chunking(10, 3).cut(total)
    assert [chunk.begin for chunk in chunks] == begins
    assert all(chunk.length == chunk.kept == 10 for chunk in chunks)
    assert chunks[-1].end == total


def test_positions_are_those_in_the_whole():
    chunk = Chunk(8, 10, 2)
    np.testing.assert_array_equal(chunk.positions, [8, 9, 0, 1])
    assert (chunk.kept, chunk.length) == (2, 4)


def test_buckets_are_few_and_near():
    lengths = range(1, 646)
    buckets = [bucket(length, 645) for length in lengths]
    assert len(set(buckets)) == 48
    assert sorted(buckets) == buckets
    assert {length: buckets[length - 1] for length in (1, 8, 9, 17, 33, 107, 513, 640, 641)} == {
        1: 8,
        8: 8,
        9: 10,
        17: 18,
        33: 36,
        107: 112,
        513: 576,
        640: 640,
        641: 645,
    }
    assert all(0 <= b - n <= max(n / 8, 7) for n, b in zip(lengths, buckets, strict=True))
    assert bucket(3, 4) == 4

import pytest

from m2l_jax.codec.chunks import cut


@pytest.mark.parametrize(
    ('total', 'chunks'),
    [
        (3, [[(0, 3)]]),
        (4, [[(0, 4)]]),
        (5, [[(0, 4)], [(4, 5), (0, 3)]]),
        (8, [[(0, 4)], [(4, 8)]]),
        (10, [[(0, 4)], [(4, 8)], [(8, 10), (0, 2)]]),
    ],
)
def test_the_last_chunk_wraps_round(total, chunks):
    assert cut(total, 4) == chunks

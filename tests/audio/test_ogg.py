"""Ogg files of several streams, with pages missing, or with FLAC in them."""

import numpy as np
import pytest

from m2l_jax.audio import files
from tests.audio.kinds import (
    JUNK,
    encode,
    id3v2,
    numbered,
    ogg_flac,
    ogg_page,
    ogg_pages,
    read_all_ways,
    refusal,
)

RATE = 48_000


def pages_of(subtype, seconds=0.6, seed=0):
    if subtype == 'FLAC':
        return ogg_pages(ogg_flac(encode('FLAC', seconds=seconds, seed=seed, rate=RATE)))
    return ogg_pages(encode('OGG', subtype, seconds, seed, RATE))


subtypes = pytest.mark.parametrize('subtype', ['VORBIS', 'OPUS', 'FLAC'])


@subtypes
@pytest.mark.parametrize('serials', [(1, 2), (1, 1)])
@pytest.mark.parametrize('seconds', [0.6, 0.01])
@pytest.mark.parametrize('after', [b'', JUNK], ids=['', 'junk after'])
def test_streams_in_a_row_are_refused(tmp_path, subtype, serials, seconds, after):
    first = numbered(pages_of(subtype), serials[0])
    second = numbered(pages_of(subtype, seconds, seed=1), serials[1])
    path = tmp_path / 'a.ogg'
    path.write_bytes(b''.join(first + second) + after)
    message = refusal(path, RATE)
    assert f'{path} holds several streams in a row' in message
    assert message.endswith(f'or convert it (ffmpeg -i {path} FILE.flac)')
    path.write_bytes(b''.join(first + second + first) + after)
    assert f'{path} holds several streams in a row' in refusal(path, RATE)


@subtypes
@pytest.mark.parametrize('serials', [(1, 2), (1, 1)])
def test_a_stream_that_lost_its_first_pages_is_one_more(tmp_path, subtype, serials):
    first = numbered(pages_of(subtype), serials[0])
    second = numbered(pages_of(subtype, seed=1), serials[1])
    path = tmp_path / 'a.ogg'
    path.write_bytes(b''.join(first + second[2:]))
    assert f'{path} holds several streams in a row' in refusal(path, RATE)


@subtypes
def test_streams_beside_each_other_are_none_in_a_row(tmp_path, subtype):
    """The first that holds audio is read."""
    pages = numbered(pages_of(subtype), 1)
    path = tmp_path / 'a.ogg'
    path.write_bytes(b''.join(pages))
    alone = read_all_ways(path, RATE)
    other = [ogg_page(b'other', 0, flags=2, serial=2), ogg_page(b'data', 1, serial=2)]
    path.write_bytes(b''.join([pages[0], other[0], pages[1], other[1], *pages[2:]]))
    np.testing.assert_array_equal(read_all_ways(path, RATE), alone)
    path.write_bytes(b''.join(pages) + JUNK)
    np.testing.assert_array_equal(read_all_ways(path, RATE), alone)


@subtypes
def test_missing_and_broken_pages_are_counted(tmp_path, subtype):
    pages = pages_of(subtype, seconds=1 if subtype == 'FLAC' else 8)
    path = tmp_path / 'a.ogg'
    changed = pages[3][:-1] + bytes([pages[3][-1] ^ 1])
    for broken in (pages[:3] + pages[5:], [*pages[:3], changed, JUNK, *pages[5:]]):
        path.write_bytes(b''.join(broken))
        assert refusal(path, RATE) == (
            f'{path} is damaged, 2 of its pages are missing or broken: replace or remove it'
        )


@pytest.mark.parametrize('has_length', [True, False])
def test_flac_in_ogg_is_read(tmp_path, has_length):
    flac = bytearray(encode('FLAC', rate=RATE, channels=2))
    path = tmp_path / 'a.flac'
    path.write_bytes(flac)
    expected = files.read(path, RATE)
    if not has_length:
        flac[21] &= 0xF0
        flac[22:26] = bytes(4)
    for name in ('a.oga', 'a.ogg', 'a'):
        wrapped = tmp_path / name
        wrapped.write_bytes(ogg_flac(bytes(flac)))
        np.testing.assert_array_equal(read_all_ways(wrapped, RATE), expected)


@subtypes
@pytest.mark.parametrize('before', [id3v2(90_000), id3v2(900) + bytes(5_000), bytes(70_000)])
def test_a_tag_before_the_pages_is_passed_over(tmp_path, subtype, before):
    path = tmp_path / 'a.ogg'
    content = b''.join(pages_of(subtype))
    path.write_bytes(content)
    alone = read_all_ways(path, RATE)
    path.write_bytes(before + content)
    np.testing.assert_array_equal(read_all_ways(path, RATE), alone)

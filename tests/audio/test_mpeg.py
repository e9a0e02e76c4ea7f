"""MP3s that are not a single stream from their first byte to their last."""

import struct

import numpy as np
import pytest

from tests.audio.kinds import (
    FRAME_SAMPLES,
    ID3V1,
    JUNK,
    LAYER_I,
    LAYER_II,
    START,
    frames,
    id3v2,
    mp3,
    read_all_ways,
    refusal,
    restate,
    wav_of_mp3,
    without_tag,
)

RATE = 44_100


@pytest.fixture(scope='module')
def pieces():
    """Two MP3s with the frame that states the length, of constant and of varying bit rate."""
    first = mp3(bitrate_mode='CONSTANT', compression_level=0.8)
    return first, mp3(seconds=1, seed=1, bitrate_mode='VARIABLE')


def read(tmp_path, content, name='a.mp3'):
    path = tmp_path / name
    path.write_bytes(content)
    return read_all_ways(path, RATE)


@pytest.mark.parametrize(
    'between',
    [b'', ID3V1, ID3V1 + id3v2(30_000), b'APETAGEX' + JUNK[:5000] + ID3V1, JUNK[:80_000]],
    ids=['nothing', 'ID3v1', 'ID3v2', 'APE', 'junk'],
)
@pytest.mark.parametrize('second_has_tag', [True, False])
@pytest.mark.parametrize('first_has_tag', [True, False])
def test_joined_files_are_read_to_the_end_of_the_last(
    tmp_path, pieces, first_has_tag, second_has_tag, between
):
    """Each frame is read; the second's that states its length is silence."""
    first, second = pieces
    bare = [without_tag(piece) for piece in pieces]
    parts = [first if first_has_tag else bare[0], second if second_has_tag else bare[1]]
    joined = read(tmp_path, between.join(parts))
    total = (frames(first) + frames(second) + second_has_tag) * FRAME_SAMPLES
    assert joined.shape == (1, total - START * first_has_tag)
    before, after = (read(tmp_path, content) for content in bare)
    begin = START * first_has_tag
    length = before.shape[1] - 2 * FRAME_SAMPLES
    np.testing.assert_allclose(joined[:, :length], before[:, begin:][:, :length], atol=1e-6)
    np.testing.assert_allclose(joined[:, -30_000:], after[:, -30_000:], atol=1e-6)


def test_a_last_piece_of_two_frames_is_read(tmp_path, pieces):
    first, second = pieces
    bare = without_tag(second)
    two = bare[: bare.index(bare[:2], bare.index(bare[:2], 2) + 2)]
    joined = read(tmp_path, first + two)
    assert joined.shape[1] == (frames(first) + 2) * FRAME_SAMPLES - START


@pytest.mark.parametrize(
    'other',
    [
        mp3(seconds=1, rate=48_000),
        without_tag(mp3(seconds=1, rate=22_050)),
        mp3(seconds=1, channels=2),
        LAYER_II * 20,
    ],
    ids=['rate', 'version', 'channels', 'layer'],
)
def test_pieces_of_other_kinds_are_refused(tmp_path, pieces, other):
    path = tmp_path / 'a.mp3'
    for first in (pieces[0], without_tag(pieces[0])):
        path.write_bytes(first + other)
        assert f'{path} holds several streams in a row' in refusal(path, RATE)


@pytest.mark.parametrize(('frame', 'samples'), [(LAYER_I, 384), (LAYER_II, 1152)])
def test_layers_one_and_two_are_read(tmp_path, frame, samples):
    for content in (frame * 50, JUNK[:500] + frame * 50, frame * 20 + ID3V1 + frame * 30):
        whole = read(tmp_path, content)
        np.testing.assert_array_equal(whole, np.zeros((1, 50 * samples)))


@pytest.mark.parametrize('name', ['a', 'a.mp3', 'a.wav'])
@pytest.mark.parametrize('junk', [JUNK[:1], JUNK[:700], JUNK[:30_000], id3v2(70_000) + JUNK[:9]])
def test_junk_before_the_first_frame_is_passed_over(tmp_path, pieces, junk, name):
    for content in (pieces[0], without_tag(pieces[0])):
        expected = read(tmp_path, content)
        np.testing.assert_allclose(read(tmp_path, junk + content, name), expected, atol=1e-6)


APE = b'APETAGEX' + struct.pack('<IIIIQ', 2000, 90_032, 1, 5 << 29, 0) + JUNK[:90_000]
APE += b'APETAGEX' + struct.pack('<IIIIQ', 2000, 90_032, 1, 4 << 29, 0)


@pytest.mark.parametrize(
    'before', [APE, id3v2(900) + APE, id3v2(900) + bytes(90_000), bytes(90_000), id3v2(90_000) * 2]
)
@pytest.mark.parametrize('after', [b'', ID3V1, APE + ID3V1, JUNK[:90_000], bytes(90_000)])
def test_large_tags_and_zeros_are_passed_over_in_silence(tmp_path, pieces, before, after, capfd):
    """libmpg123 writes warnings of its own."""
    for content in (pieces[0], without_tag(pieces[0])):
        expected = read(tmp_path, content)
        whole = read(tmp_path, before + content + after)
        np.testing.assert_allclose(whole, expected, atol=1e-6)
    assert capfd.readouterr() == ('', '')


def test_a_cut_frame_at_the_beginning_is_passed_over(tmp_path, pieces):
    whole = read(tmp_path, without_tag(pieces[0]))
    assert read(tmp_path, pieces[0][100:]).shape == whole.shape
    cut = read(tmp_path, without_tag(pieces[0])[100:])
    assert cut.shape[1] == whole.shape[1] - FRAME_SAMPLES
    np.testing.assert_allclose(cut[:, -30_000:], whole[:, -30_000:], atol=1e-6)


def test_what_follows_the_last_frame_is_passed_over(tmp_path, pieces):
    for content in (pieces[0], without_tag(pieces[0])):
        expected = read(tmp_path, content)
        for after in (bytes(70_000), ID3V1, content[-300:-200]):
            np.testing.assert_array_equal(read(tmp_path, content + after), expected)


def test_more_frames_than_stated_are_read(tmp_path, pieces):
    first = pieces[0]
    total = frames(first) * FRAME_SAMPLES - START
    for size in (len(first) // 2, 0, 2**31):
        whole = read(tmp_path, restate(first, frames(first) // 2, size))
        assert whole.shape[1] == total


def test_fewer_frames_than_stated_are_refused(tmp_path, pieces):
    path = tmp_path / 'a.mp3'
    first = pieces[0]
    path.write_bytes(first[: -len(first) // 20])
    assert 'the file is truncated' in refusal(path, RATE)
    path.write_bytes(restate(first, frames(first) + 9, len(first) + 1))
    assert 'the file is truncated' in refusal(path, RATE)
    # Some encoders count the frame that states it.
    whole = read(tmp_path, restate(first, frames(first) + 1, len(first) + 1))
    assert whole.shape[1] == read(tmp_path, first).shape[1]


def test_the_other_tag_that_states_a_length_is_no_sound(tmp_path, pieces):
    bare = without_tag(pieces[0])
    expected = read(tmp_path, bare)
    size = bare.index(bare[:2], 2)
    tag = bare[:4].ljust(36, b'\0') + b'VBRI' + struct.pack('>HHHII', 1, 0, 0, len(bare), 9)
    tagged = read(tmp_path, tag.ljust(size, b'\0') + bare)
    np.testing.assert_array_equal(tagged, expected)


def test_an_mp3_in_a_wav_is_read_to_its_end(tmp_path, pieces):
    bare = without_tag(pieces[1])
    expected = read(tmp_path, bare)
    np.testing.assert_array_equal(read(tmp_path, wav_of_mp3(bare), 'a.wav'), expected)


@pytest.mark.parametrize('name', ['a.mp3', 'a.m4a', 'a'])
def test_other_content_is_no_mp3(tmp_path, name):
    path = tmp_path / name
    for content in (JUNK, b'\0\0\0\x1cftypM4A ' + JUNK, b'ID3' + JUNK, b'\xff\xfb\x90'):
        path.write_bytes(content)
        message = refusal(path, RATE)
        assert f'{path} cannot be read as audio' in message
        assert 'does not exist' not in message


@pytest.mark.parametrize(
    'mark', [b'\0\0\0\x1cftypM4A ', b'\x30\x26\xb2\x75\x8e\x66', b'\x1a\x45\xdf\xa3\x9f\x42']
)
def test_formats_that_are_not_read_are_refused_without_output_of_libmpg123(tmp_path, mark, capfd):
    path = tmp_path / 'a.mp3'
    path.write_bytes(mark + JUNK)
    assert refusal(path, RATE).endswith(f'convert it (ffmpeg -i {path} FILE.flac)')
    assert capfd.readouterr().err == ''


def test_a_stream_of_a_free_bit_rate_is_refused(tmp_path):
    path = tmp_path / 'a.mp3'
    path.write_bytes(b'\xff\xfb\x00\xc0'.ljust(500, b'\0') * 50)
    assert refusal(path, RATE).startswith(str(path))

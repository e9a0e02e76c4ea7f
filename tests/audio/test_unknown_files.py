"""Untrusted files: odd but real ones are read, false ones are refused in one line."""

import os
import struct
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile

from m2l_jax.audio import files
from m2l_jax.interface.errors import InputError
from tests.conftest import make_music

RATE = 44_100


def write_wav(path, music, subtype='PCM_16', sample_rate=RATE):
    soundfile.write(path, music.T, sample_rate, subtype, format='WAV')
    return path


def patch_wav(path, offset, value, form='<I'):
    """Overwrites a number of a WAV's 44-byte header."""
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, offset, value)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize('sample_rate', [8_000, 384_000])
def test_real_rates_are_read(tmp_path, sample_rate):
    path = write_wav(tmp_path / 'a.wav', make_music(0.5, sample_rate), sample_rate=sample_rate)
    assert files.read(path, RATE).shape == (1, RATE // 2)


def test_twenty_four_channels_are_read(tmp_path):
    music = make_music(0.2, channels=24)
    path = write_wav(tmp_path / 'a.wav', music)
    np.testing.assert_allclose(files.read(path, RATE), music, atol=5e-5)


@pytest.mark.parametrize('size', [0xFFFF_FFFF, 0xFFFF_FFFE, 0x7FFF_FFFF, 0x7FFF_F000])
def test_wav_from_a_pipe_is_read_to_its_end(tmp_path, size):
    music = make_music(0.5)
    path = patch_wav(write_wav(tmp_path / 'a.wav', music), 40, size)
    np.testing.assert_allclose(files.read(path, RATE), music, atol=5e-5)


def test_wav_whose_sizes_were_never_filled_in_is_read_to_its_end(tmp_path):
    """As a recorder leaves it that lost its power."""
    music = make_music(0.5)
    path = patch_wav(patch_wav(write_wav(tmp_path / 'a.wav', music), 40, 0), 4, 0)
    assert soundfile.info(path).frames == 0
    assert files.read_info(path).samples == music.shape[1]
    np.testing.assert_allclose(files.read(path, RATE), music, atol=5e-5)
    np.testing.assert_allclose(files.read(path, RATE, 9_000, 500), music[:, 9_000:9_500], atol=5e-5)


def test_mp3_that_does_not_state_its_length_is_read_to_its_end(tmp_path):
    """Its first frames, of more bits than the later, let libsndfile guess too short a length."""
    path = tmp_path / 'a.mp3'
    music = np.concatenate([make_music(2), np.zeros((1, 8 * RATE), np.float32)], axis=1)
    with soundfile.SoundFile(path, 'w', RATE, 1, bitrate_mode='VARIABLE') as file:
        file.write(music.T)
    whole = files.read(path, RATE)
    content = path.read_bytes()
    second_frame = content.index(content[:2], content.index(b'Xing'))
    path.write_bytes(content[second_frame:])
    assert soundfile.info(path).frames < 5 * RATE
    untagged = files.read(path, RATE)
    delay = 1105  # of encoder and decoder, which the removed frame tells
    np.testing.assert_array_equal(untagged[:, delay : delay + 10 * RATE], whole)
    blocks = list(files.read_blocks(path, RATE, 3 * RATE))
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), untagged)


def test_flac_from_a_pipe_is_read_to_its_end(tmp_path):
    path = tmp_path / 'a.flac'
    music = make_music(3)
    soundfile.write(path, music.T, RATE)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)  # STREAMINFO: the number of samples is not known
    path.write_bytes(content)
    np.testing.assert_allclose(files.read(path, RATE), music, atol=5e-5)
    np.testing.assert_allclose(
        files.read(path, RATE, 70_000, 20_000), music[:, 70_000:90_000], atol=5e-5
    )
    assert files.read_info(path).samples == music.shape[1]


def test_an_hour_of_silence_is_real(tmp_path):
    path = tmp_path / 'a.flac'
    with soundfile.SoundFile(path, 'w', RATE, 1) as file:
        for _ in range(360):
            file.write(np.zeros(10 * RATE, np.int16))
    assert path.stat().st_size < 1_000_000
    assert files.read_info(path).samples == 3600 * RATE
    last = files.read(path, RATE, 3599 * RATE, RATE)
    np.testing.assert_array_equal(last, np.zeros((1, RATE), np.float32))


@pytest.mark.parametrize(
    ('offset', 'form', 'value', 'claim'),
    [
        (24, '<I', 999, 'a sample rate of 999 Hz'),
        (24, '<I', 1_000_001, 'a sample rate of 1000001 Hz'),
        (24, '<I', 0x7FFF_FFFF, 'a sample rate of 2147483647 Hz'),
        (22, '<H', 255, '255 channels, of at most 128'),
    ],
)
def test_false_headers_are_refused(tmp_path, offset, form, value, claim):
    path = patch_wav(write_wav(tmp_path / 'a.wav', make_music(0.5)), offset, value, form)
    for reader in (files.read_info, lambda path: files.read(path, RATE)):
        with pytest.raises(InputError, match=rf'a\.wav cannot be audio, its header claims {claim}'):
            reader(path)


def test_hours_in_a_kilobyte_are_refused_without_allocating_them(tmp_path):
    path = tmp_path / 'a.flac'
    soundfile.write(path, make_music(0.05).T, RATE)
    content = bytearray(path.read_bytes())
    content[22:26] = struct.pack('>I', 100 * 3600 * RATE % 2**32)
    content[21] |= 100 * 3600 * RATE >> 32
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(InputError, match=r'claims 100\.0 hours in \d+ bytes'):
        files.read(path, RATE)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_memory_follows_the_content_and_not_the_header(tmp_path):
    """Ten minutes are claimed, which so many bytes could hold; a second is there."""
    path = tmp_path / 'a.flac'
    soundfile.write(path, make_music(1).T, RATE)
    content = bytearray(path.read_bytes())
    content[22:26] = struct.pack('>I', 600 * RATE)
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(InputError, match=r'ends after 44100 samples of 26460000'):
        files.read(path, RATE)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


@pytest.mark.parametrize('kind', ['WAV', 'W64', 'RF64', 'AIFF', 'AU', 'SVX', 'CAF', 'FLAC', 'MP3'])
def test_half_a_file_is_refused(tmp_path, kind):
    path = tmp_path / 'a'
    soundfile.write(path, make_music(3).T, RATE, format=kind)
    assert files.read(path, RATE).shape == (1, 3 * RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r'truncated|damaged|cannot be read'):
        files.read(path, RATE)
    with pytest.raises(InputError, match=r'truncated|damaged|cannot be read'):
        list(files.read_blocks(path, RATE, RATE))


def test_miscounted_headers_are_no_truncation(tmp_path):
    """Some writers count the header as audio."""
    music = make_music(0.5)
    path = write_wav(tmp_path / 'a.wav', music)
    patch_wav(path, 40, path.stat().st_size)
    np.testing.assert_allclose(files.read(path, RATE), music, atol=5e-5)


@pytest.mark.parametrize(
    ('kind', 'subtype'),
    [('WAV', 'GSM610'), ('AU', 'G721_32'), ('XI', 'DPCM_16'), ('WAV', 'IMA_ADPCM')],
)
def test_formats_without_seeking_are_read(tmp_path, kind, subtype):
    path = tmp_path / 'a'
    soundfile.write(path, make_music(1).T, RATE, subtype, format=kind)
    whole = files.read(path, RATE)
    assert whole.shape[1] >= RATE
    np.testing.assert_array_equal(files.read(path, RATE, 30_000, 9_000), whole[:, 30_000:39_000])


def test_a_part_of_an_mp3_of_varying_bit_rate_is_exact(tmp_path):
    """Its frames borrow bits from frames before them."""
    path = tmp_path / 'a.mp3'
    with soundfile.SoundFile(path, 'w', RATE, 2, bitrate_mode='VARIABLE') as file:
        for seed in range(4):
            file.write(make_music(4, channels=2, seed=seed).T * 0.3**seed)
    whole = files.read(path, RATE)
    for start in range(30_001, 670_000, 16_003):
        part = files.read(path, RATE, start, 2_000)
        np.testing.assert_array_equal(part, whole[:, start : start + 2_000])


@pytest.mark.skipif(sys.platform != 'linux', reason='names elsewhere are Unicode')
def test_names_that_are_no_unicode_are_read(tmp_path):
    music = make_music(0.2)
    path = write_wav(tmp_path / 'a.wav', music).rename(tmp_path / os.fsdecode(b'\xff\xe9.wav'))
    np.testing.assert_allclose(files.read(path, RATE), music, atol=5e-5)
    assert files.read_info(os.fspath(path)).samples == music.shape[1]


def test_a_file_that_goes_away_while_it_is_opened_is_named(tmp_path, monkeypatch):
    path = write_wav(tmp_path / 'a.wav', make_music(0.2))
    monkeypatch.setattr(os.path, 'getsize', lambda _: os.stat(tmp_path / 'gone'))
    with pytest.raises(InputError, match=r'a\.wav cannot be read as audio \(.*No such file'):
        files.read_info(path)

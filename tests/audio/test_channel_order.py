"""Channels of surround files, against tones whose place is known."""

import functools
import struct

import numpy as np
import pytest
import soundfile

from m2l_jax.audio import files

RATE = 48_000
# Which of WAV's channels each channel in a Vorbis stream is: left, centre, right, back, low ….
STORED = {
    3: [0, 2, 1],
    4: [0, 1, 2, 3],
    5: [0, 2, 1, 3, 4],
    6: [0, 2, 1, 4, 5, 3],
    7: [0, 2, 1, 5, 6, 4, 3],
    8: [0, 2, 1, 6, 7, 4, 5, 3],
}


def make_tones(channels):
    """`[channels, samples]`: low enough for a channel of effects, each of its own frequency."""
    time = np.arange(RATE) / RATE
    pitches = 40 + 10 * np.arange(channels)[:, None]
    return (0.5 * np.sin(2 * np.pi * pitches * time)).astype(np.float32)


def order_of(waveform, tones):
    """Index of the tone that each channel is."""
    length = min(waveform.shape[1], tones.shape[1])
    likeness = waveform[:, :length] @ tones[:, :length].T
    return np.abs(likeness).argmax(axis=1).tolist()


@pytest.mark.parametrize('channels', range(3, 9))
@pytest.mark.parametrize('subtype', ['VORBIS', 'OPUS'])
def test_ogg_is_read_in_the_order_of_wav(tmp_path, channels, subtype):
    path, tones = tmp_path / 'a.ogg', make_tones(channels)
    soundfile.write(path, tones[STORED[channels]].T, RATE, format='OGG', subtype=subtype)
    in_order = list(range(channels))
    assert order_of(files.read(path, RATE), tones) == in_order
    assert order_of(files.read(path, RATE, 5_000, 9_600), tones[:, 5_000:14_600]) == in_order
    (block,) = files.read_blocks(path, RATE, 2 * RATE)
    assert order_of(block, tones) == in_order


@pytest.mark.parametrize('channels', [1, 2, 9, 12])
def test_other_numbers_of_channels_have_no_order(tmp_path, channels):
    path, tones = tmp_path / 'a.ogg', make_tones(channels)
    soundfile.write(path, tones.T, RATE)
    assert order_of(files.read(path, RATE), tones) == list(range(channels))


@pytest.mark.parametrize('family', [2, 3, 255])
def test_opus_whose_channels_are_no_loudspeakers_is_left_as_it_is(tmp_path, family):
    path, tones = tmp_path / 'a.opus', make_tones(6)
    soundfile.write(path, tones.T, RATE, format='OGG', subtype='OPUS')
    content = bytearray(path.read_bytes())
    content[content.find(b'OpusHead') + 18] = family
    segments = content[26]
    first_page = content[: 27 + segments + sum(content[27 : 27 + segments])]
    first_page[22:26] = bytes(4)
    content[22:26] = struct.pack('<I', functools.reduce(_add_to_checksum, first_page, 0))
    path.write_bytes(content)
    assert order_of(files.read(path, RATE), tones) == list(range(6))


def _add_to_checksum(checksum, byte):
    """The checksum of an Ogg page (RFC 3533) with one more byte."""
    checksum ^= byte << 24
    for _ in range(8):
        checksum = checksum << 1 ^ (0x104C11DB7 if checksum & 1 << 31 else 0)
    return checksum


def test_a_round_trip_keeps_each_channel_in_its_place(tmp_path):
    kept = {}
    for kind in soundfile.available_formats():
        for channels in range(1, 9):
            path, tones = tmp_path / f'{channels}.{kind.lower()}', make_tones(channels)
            try:
                files.write(path, tones, RATE)
            except files.FormatError:  # that it has no room for
                continue
            kept[kind, channels] = order_of(files.read(path, RATE), tones)
    assert {kind for kind, channels in kept if channels == 8} >= {'WAV', 'FLAC', 'OGG', 'AIFF'}
    assert kept == {key: list(range(key[1])) for key in kept}


@pytest.mark.parametrize('channels', range(3, 9))
def test_vorbis_is_written_in_its_own_order(tmp_path, channels):
    path, tones = tmp_path / 'a.ogg', make_tones(channels)
    files.write(path, tones, RATE)
    stored, _ = soundfile.read(path)
    assert order_of(stored.T, tones) == STORED[channels]

"""Files as they are found, made from what libsndfile writes, byte by byte."""

import io
import re
import struct

import numpy as np
import soundfile

from m2l_jax.audio import files
from m2l_jax.interface.errors import InputError
from tests.conftest import make_music

FRAME_SAMPLES = 1152
START = 1105  # samples at the beginning that an MP3's tag says are no part of the music

ID3V1 = b'TAG'.ljust(128, b'x')
JUNK = np.random.default_rng(0).bytes(100_000)
# Silence: headers of 44.1 kHz in mono, without a checksum, and frames of their length.
LAYER_I = (b'\xff\xff\x80\xc0').ljust(276, b'\0')
LAYER_II = (b'\xff\xfd\x80\xc0').ljust(417, b'\0')


def encode(kind, subtype=None, seconds=2, seed=0, rate=44_100, channels=1, **settings):
    """The bytes of a file of music."""
    target = io.BytesIO()
    music = make_music(seconds, rate, channels, seed)
    with soundfile.SoundFile(target, 'w', rate, channels, subtype, format=kind, **settings) as file:
        file.write(music.T)
    return target.getvalue()


def mp3(**arguments):
    """An MP3 that states its length in its first frame."""
    return encode('MP3', **arguments)


def without_tag(content):
    """An MP3 without the frame that states the length."""
    mark = re.search(b'Xing|Info', content).start()
    return content[content.index(content[:2], mark) :]


def frames(content):
    """The frames of music that an MP3 states."""
    mark = re.search(b'Xing|Info', content).end()
    return struct.unpack_from('>I', content, mark + 4)[0]


def restate(content, count, size):
    """An MP3 that states another number of frames and bytes."""
    changed = bytearray(content)
    struct.pack_into('>II', changed, re.search(b'Xing|Info', content).end() + 4, count, size)
    return bytes(changed)


def id3v2(size):
    """A tag as with a picture."""
    return b'ID3\3\0\0' + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + JUNK[:size]


def wav_of_mp3(content):
    """An MP3 in a WAV."""
    form = struct.pack('<HHIIHHHHIHHH', 0x55, 1, 44_100, 16_000, 1, 0, 12, 1, 0, 417, 1, 1393)
    chunks = b'fmt ' + struct.pack('<I', len(form)) + form
    chunks += b'fact' + struct.pack('<II', 4, 1) + b'data' + struct.pack('<I', len(content))
    return b'RIFF' + struct.pack('<I', 4 + len(chunks) + len(content)) + b'WAVE' + chunks + content


def ogg_pages(content):
    """The pages of an Ogg file that holds no `OggS` elsewhere."""
    return [b'OggS' + page for page in content.split(b'OggS')[1:]]


def numbered(pages, serial):
    """Pages as of a stream with a serial number of one's own choice."""
    return [_summed(page[:14] + struct.pack('<I', serial) + page[18:]) for page in pages]


def ogg_page(body, number, flags=0, serial=5, position=0):
    """A page."""
    lengths = bytes([255] * (len(body) // 255) + [len(body) % 255])
    header = struct.pack('<4sBBqIIIB', b'OggS', 0, flags, position, serial, number, 0, len(lengths))
    return _summed(header + lengths + body)


def _summed(page):
    """The page with its checksum."""
    total = 0
    for byte in page[:22] + bytes(4) + page[26:]:
        total = (total << 8 & 0xFFFFFFFF) ^ _CRC[total >> 24 ^ byte]
    return page[:22] + struct.pack('<I', total) + page[26:]


def _crc(byte):
    total = byte << 24
    for _ in range(8):
        total = (total << 1) ^ (0x104C11DB7 if total & 0x80000000 else 0)
    return total


_CRC = [_crc(byte) for byte in range(256)]


def ogg_flac(flac):
    """A FLAC file in the pages of an Ogg file."""
    bodies = [b'\x7fFLAC\1\0\0\1' + flac[:42]]
    bodies += [flac[begin : begin + 5000] for begin in range(42, len(flac), 5000)]
    return b''.join(
        ogg_page(body, number, flags=0 if number else 2) for number, body in enumerate(bodies)
    )


def read_all_ways(path, rate):
    """The whole, after a check that parts, blocks and the stated length agree with it."""
    whole = files.read(path, rate)
    info = files.read_info(path)
    total = whole.shape[1]
    assert (info.sample_rate, info.channels, info.samples) == (rate, len(whole), total)
    blocks = list(files.read_blocks(path, rate, 10_007))
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), whole)
    for start in (0, total // 3, total * 2 // 3, max(0, total - 1000)):
        part = files.read(path, rate, start, min(1000, total - start))
        np.testing.assert_allclose(part, whole[:, start : start + 1000], atol=1e-6)
    return whole


def refusal(path, rate):
    """The one message with which all ways to read a file refuse it."""
    messages = set()
    for reader in (
        lambda: files.read_info(path),
        lambda: files.read(path, rate),
        lambda: files.read(path, rate, 100, 1000),
        lambda: list(files.read_blocks(path, rate, 1000)),
    ):
        try:
            reader()
        except InputError as error:
            messages.add(str(error))
        else:
            messages.add('read')
    assert len(messages) == 1
    return messages.pop()

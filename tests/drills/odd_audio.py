"""Audio files of odd structure, each with the frames that are in it: joined, chained, misstated.

Decoders disagree about such files, and the usual fault is silent: a part of the audio, and no word.
"""

import dataclasses
import io
import pathlib
import random
import struct
from collections.abc import Callable

import numpy as np
import soundfile

_RATES = (44_100, 48_000)
_TAGS = (b'', b'TAG' + bytes(125), b'ID3\x04\x00\x00\x00\x00\x01\x00' + bytes(128))
# Offset and form of the number of bytes of audio, in what libsndfile writes of PCM_16.
_SIZE_FIELDS = (
    ('.wav', 'WAV', b'data', 4, '<I'),
    ('.wav', 'WAVEX', b'data', 4, '<I'),
    ('.w64', 'W64', b'data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a', 16, '<Q'),
    ('.aiff', 'AIFF', b'SSND', 4, '>I'),
    ('.au', 'AU', b'.snd', 8, '>I'),
    ('.caf', 'CAF', b'data', 4, '>Q'),
)
_MANY_CHANNELS = (
    ('.wav', 'WAVEX', 'PCM_16'),
    ('.flac', 'FLAC', 'PCM_16'),
    ('.aiff', 'AIFF', 'PCM_16'),
    ('.caf', 'CAF', 'PCM_16'),
    ('.ogg', 'OGG', 'VORBIS'),
    ('.opus', 'OGG', 'OPUS'),
)
# 4 GiB in 8 seconds.
_WRAPPED_CHANNELS, _WRAPPED_RATE, _WRAPPED_BYTES = 64, 1_000_000, 8


@dataclasses.dataclass(frozen=True)
class OddFile:
    """A file and what is in it.

    Attributes:
      suffix: of its name.
      content: its bytes.
      label: what is odd about it.
      seconds: of audio that were put into it; of a file that is cut, fewer.
      is_certain: `seconds` is all that there is: what another decoder reads beyond it is the
        encoder's padding.
    """

    suffix: str
    content: bytes
    label: str
    seconds: float
    is_certain: bool = False


def write_odd_files(folder: pathlib.Path, seed: int, count: int) -> dict[str, OddFile]:
    """Writes files of each kind in turn; returns them by the names that they have in `folder`."""
    folder.mkdir(parents=True)
    chance = random.Random(seed)
    written = {}
    for number in range(count):
        odd = _KINDS[number % len(_KINDS)](chance)
        name = f'{number:04d}{odd.suffix}'
        (folder / name).write_bytes(odd.content)
        written[name] = odd
    return written


def write_wrapped_wav(path: pathlib.Path, beyond_seconds: float) -> OddFile:
    """Writes a sparse WAV of more than 4 GiB, whose 32-bit sizes have begun again at 0."""
    frame = _WRAPPED_BYTES * _WRAPPED_CHANNELS
    data = (2**32 // frame + int(beyond_seconds * _WRAPPED_RATE)) * frame
    form = (3, _WRAPPED_CHANNELS, _WRAPPED_RATE, _WRAPPED_RATE * frame, frame, 64)
    header = struct.pack('<4sI4s4sI', b'RIFF', (data + 36) % 2**32, b'WAVE', b'fmt ', 16)
    header += struct.pack('<HHIIHH4sI', *form, b'data', data % 2**32)
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (_WRAPPED_RATE // 2, _WRAPPED_CHANNELS))
    with open(path, 'wb') as file:
        file.write(header + noise.astype('<f8').tobytes())
        file.truncate(len(header) + data)
    return OddFile(path.suffix, b'', 'wrapped WAV', data / frame / _WRAPPED_RATE, True)


def _sound(seconds: float, rate: int, channels: int) -> np.ndarray:
    """Noise that is louder in each channel than in the one before, `[samples, channels]`."""
    noise = np.random.default_rng(channels).standard_normal((round(seconds * rate), channels))
    return 0.01 * noise * 1.5 ** np.arange(channels)


def _encoded(kind: str, subtype: str, seconds: float, rate: int, channels: int) -> bytes:
    target = io.BytesIO()
    soundfile.write(target, _sound(seconds, rate, channels), rate, subtype, format=kind)
    return target.getvalue()


def _mp3(chance: random.Random, is_tagged: bool, seconds: float, rate: int, channels: int) -> bytes:
    """An MP3 with or without the frame that states its length."""
    target = io.BytesIO()
    mode = chance.choice(('CONSTANT', 'VARIABLE'))
    with soundfile.SoundFile(
        target, 'w', rate, channels, 'MPEG_LAYER_III', format='MP3', bitrate_mode=mode
    ) as file:
        file.write(_sound(seconds, rate, channels))
    content = target.getvalue()
    return content if is_tagged else content[content.index(content[:2], 4) :]


def _joined_mp3(chance: random.Random) -> OddFile:
    pieces = chance.choice((2, 3))
    lengths = [chance.choice((0.5, 1.0, 2.0)) for _ in range(pieces)]
    same = chance.random() < 0.5
    rates = [_RATES[0] if same else chance.choice(_RATES) for _ in range(pieces)]
    channels = [1 if same else chance.choice((1, 2)) for _ in range(pieces)]
    content = b''.join(
        _mp3(chance, chance.random() < 0.75, *each) + chance.choice(_TAGS)
        for each in zip(lengths, rates, channels, strict=True)
    )
    return OddFile('.mp3', content, f'joined MP3, {"like" if same else "unlike"}', sum(lengths))


def _mp3_after_junk(chance: random.Random) -> OddFile:
    seconds, is_tagged = chance.choice((0.5, 1.0, 2.0)), chance.random() < 0.75
    mp3 = _mp3(chance, is_tagged, seconds, chance.choice(_RATES), 2)
    if chance.random() < 0.5:
        junk = bytes(chance.randrange(1, 5000))
        return OddFile('.mp3', junk + mp3, 'MP3 after junk', seconds, is_tagged)
    cut = mp3[chance.randrange(1, 300) :]
    return OddFile('.mp3', cut, 'MP3 with a cut first frame', seconds - 0.1)


def _chained_ogg(chance: random.Random) -> OddFile:
    subtypes = (
        [chance.choice(('VORBIS', 'OPUS'))] * 2 if chance.random() < 0.7 else ('VORBIS', 'OPUS')
    )
    lengths = [chance.choice((0.2, 1.0, 2.0)) for _ in subtypes]
    channels = [chance.choice((1, 2)) for _ in subtypes]
    content = [
        _encoded('OGG', subtype, length, 48_000, number)
        for subtype, length, number in zip(subtypes, lengths, channels, strict=True)
    ]
    label = 'chained Ogg'
    if chance.random() < 0.4:
        content = [_with_serial(each, 1) for each in content]
        label += ', one serial number'
    return OddFile('.ogg', b''.join(content), label, sum(lengths))


def _short_size(chance: random.Random) -> OddFile:
    suffix, kind, mark, distance, form = chance.choice(_SIZE_FIELDS)
    seconds, rate, channels = (
        chance.choice((1.0, 2.0)),
        chance.choice(_RATES),
        chance.choice((1, 2)),
    )
    content = bytearray(_encoded(kind, 'PCM_16', seconds, rate, channels))
    place = content.index(mark) + distance
    size = chance.choice((0, 4, 4000, rate * channels))
    struct.pack_into(form, content, place, size)
    return OddFile(suffix, bytes(content), f'{kind} that states {size} bytes', seconds)


def _short_flac(chance: random.Random) -> OddFile:
    content = bytearray(_encoded('FLAC', 'PCM_16', 2.0, 44_100, 2))
    samples = chance.choice((0, 1, 44_100))
    content[21] &= 0xF0
    content[22:26] = struct.pack('>I', samples)
    return OddFile('.flac', bytes(content), f'FLAC that states {samples} samples', 2.0)


def _many_channels(chance: random.Random) -> OddFile:
    suffix, kind, subtype = chance.choice(_MANY_CHANNELS)
    channels = chance.randrange(3, 9)
    content = _encoded(kind, subtype, 1.0, 48_000, channels)
    return OddFile(suffix, content, f'{kind} {subtype}, {channels} channels', 1.0)


def _with_serial(content: bytes, serial: int) -> bytes:
    """An Ogg file with another serial number in each of its pages."""
    pages, begin = bytearray(content), 0
    while begin < len(pages):
        segments = pages[begin + 26]
        end = begin + 27 + segments + sum(pages[begin + 27 : begin + 27 + segments])
        struct.pack_into('<I', pages, begin + 14, serial)
        struct.pack_into('<I', pages, begin + 22, 0)
        struct.pack_into('<I', pages, begin + 22, _ogg_checksum(pages[begin:end]))
        begin = end
    return bytes(pages)


def _ogg_checksum(page: bytes) -> int:
    """The CRC-32 of RFC 3533: polynomial 0x04c11db7, nothing reflected."""
    checksum = 0
    for byte in page:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1) ^ (0x104C11DB7 if checksum >> 31 else 0)
    return checksum


_KINDS: tuple[Callable[[random.Random], OddFile], ...] = (
    _joined_mp3,
    _short_size,
    _chained_ogg,
    _many_channels,
    _mp3_after_junk,
    _short_size,
    _short_flac,
    _joined_mp3,
)

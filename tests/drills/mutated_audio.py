"""Broken audio files, as a corpus of unknown origin holds them: seeded, each with its label."""

import dataclasses
import io
import pathlib
import random
import struct
from collections.abc import Callable, Iterator

import numpy as np
import soundfile

# Suffix, libsndfile's format and its subtype.
KINDS = (
    ('.wav', 'WAV', 'PCM_16'),
    ('.wav', 'WAV', 'PCM_24'),
    ('.wav', 'WAV', 'FLOAT'),
    ('.wav', 'WAV', 'IMA_ADPCM'),
    ('.wav', 'WAV', 'MS_ADPCM'),
    ('.wav', 'WAVEX', 'PCM_16'),
    ('.wav', 'RF64', 'PCM_16'),
    ('.w64', 'W64', 'PCM_16'),
    ('.aiff', 'AIFF', 'PCM_16'),
    ('.au', 'AU', 'PCM_16'),
    ('.caf', 'CAF', 'PCM_16'),
    ('.caf', 'CAF', 'ALAC_16'),
    ('.flac', 'FLAC', 'PCM_16'),
    ('.ogg', 'OGG', 'VORBIS'),
    ('.opus', 'OGG', 'OPUS'),
    ('.mp3', 'MP3', 'MPEG_LAYER_III'),
)
_SAMPLE_RATE = 48_000  # of those that Opus knows
_HEADER_BYTES = 256
# Offsets in the header of a WAV that libsndfile writes as PCM_16.
_RIFF_SIZE, _CHANNELS, _RATE, _DATA_SIZE, _DATA = 4, 22, 24, 40, 44
_FALSE_RATES = (0, 1, 999, 2_000_000, 2**31 - 1, 2**31, 2**32 - 1)
_FALSE_CHANNELS = (0, 255, 1024, 65535)
_FALSE_SIZES = (0, 1, 2**20, 2**30, 2**31 - 1, 2**32 - 1)


@dataclasses.dataclass(frozen=True)
class Mutation:
    """A file that is not as it was written.

    Attributes:
      suffix: of its name.
      content: its bytes.
      label: what was done to it.
      broken: certainly not readable as audio; otherwise it may be, with other samples or fewer.
    """

    suffix: str
    content: bytes
    label: str
    broken: bool


def mutations(seed: int, count: int, seconds: float = 1.0) -> Iterator[Mutation]:
    """`count` broken files, of every kind in turn.

    The same for the same arguments, but for what libsndfile draws or looks up itself: the serial
    number of an Ogg stream, the time of writing in a WAV of floats.
    """
    chance = random.Random(seed)
    sound = [(suffix, kind, encode(kind, subtype, seconds)) for suffix, kind, subtype in KINDS]
    for number in range(count):
        mutate = _MUTATORS[number % len(_MUTATORS)]
        suffix, kind, content = sound[chance.randrange(len(sound))]
        mutation = mutate(chance, suffix, content)
        label = f'{kind}: {mutation.label}' if mutate not in _OWN_CONTENT else mutation.label
        yield dataclasses.replace(mutation, label=label)


def write_mutations(
    folder: pathlib.Path, seed: int, count: int, seconds: float = 1.0
) -> dict[str, Mutation]:
    """Writes broken files; returns them by the names that they have in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for number, mutation in enumerate(mutations(seed, count, seconds)):
        name = f'{number:06d}{mutation.suffix}'
        (folder / name).write_bytes(mutation.content)
        written[name] = mutation
    return written


def encode(kind: str, subtype: str, seconds: float, seed: int = 0) -> bytes:
    """A sound file of a stereo chord in noise, in one of libsndfile's formats."""
    noise = np.random.default_rng(seed).standard_normal((int(seconds * _SAMPLE_RATE), 2))
    time = np.arange(len(noise))[:, None] / _SAMPLE_RATE
    chord = sum(np.sin(2 * np.pi * pitch * time) for pitch in (220, 277, 330))
    target = io.BytesIO()
    soundfile.write(target, 0.2 * chord + 0.02 * noise, _SAMPLE_RATE, subtype, format=kind)
    return target.getvalue()


def _flip(chance: random.Random, content: bytes, begin: int, end: int, flips: int) -> bytes:
    flipped = bytearray(content)
    for _ in range(flips):
        flipped[chance.randrange(begin, end)] ^= 1 << chance.randrange(8)
    return bytes(flipped)


def _flip_header(chance: random.Random, suffix: str, content: bytes) -> Mutation:
    flips = chance.choice((1, 1, 2, 8))
    flipped = _flip(chance, content, 0, min(_HEADER_BYTES, len(content)), flips)
    return Mutation(suffix, flipped, f'{flips} bits of the header flipped', False)


def _flip_body(chance: random.Random, suffix: str, content: bytes) -> Mutation:
    flips = chance.choice((1, 16, 256))
    flipped = _flip(chance, content, _HEADER_BYTES, len(content), flips)
    return Mutation(suffix, flipped, f'{flips} bits of the body flipped', False)


def _overwrite(chance: random.Random, suffix: str, content: bytes) -> Mutation:
    begin = chance.randrange(len(content))
    length = min(chance.choice((4, 100, 5000)), len(content) - begin)
    patch = chance.choice((bytes(length), b'\xff' * length, chance.randbytes(length)))
    overwritten = content[:begin] + patch + content[begin + length :]
    return Mutation(suffix, overwritten, f'{length} bytes from {begin} on overwritten', False)


def _truncate(chance: random.Random, suffix: str, content: bytes) -> Mutation:
    length = chance.choice((chance.randrange(64), chance.randrange(len(content))))
    # A few bytes hold no header and frame of any format.
    return Mutation(suffix, content[:length], f'cut to {length} bytes', length < 16)


def _remove(chance: random.Random, suffix: str, content: bytes) -> Mutation:
    begin = chance.randrange(len(content))
    length = chance.choice((1, 100, len(content) // 3))
    shortened = content[:begin] + content[begin + length :]
    return Mutation(suffix, shortened, f'{length} bytes from {begin} on removed', False)


def _empty(chance: random.Random, suffix: str, content: bytes) -> Mutation:
    return Mutation(suffix, b'', 'empty', True)


def _break_magic(chance: random.Random, suffix: str, content: bytes) -> Mutation:
    # A decoder of MP3 looks for its frames wherever they begin.
    return Mutation(suffix, b'JUNK' + content[4:], 'first four bytes replaced', suffix != '.mp3')


def _swap_suffix(chance: random.Random, suffix: str, content: bytes) -> Mutation:
    other = chance.choice([kind[0] for kind in KINDS if kind[0] != suffix])
    return Mutation(other, content, f'named {other}', False)


def _text(chance: random.Random, suffix: str, content: bytes) -> Mutation:
    text = '<html><body>404: not found</body></html>\n' * chance.randrange(1, 200)
    return Mutation(suffix, text.encode(), f'text named {suffix}', True)


def _garbage(chance: random.Random, suffix: str, content: bytes) -> Mutation:
    length = chance.randrange(1, 50_000)
    return Mutation(suffix, chance.randbytes(length), f'{length} random bytes', False)


def _lying_rate(chance: random.Random, suffix: str, content: bytes) -> Mutation:
    rate = chance.choice(_FALSE_RATES)
    return Mutation('.wav', _patched_wav(_RATE, '<I', rate), f'WAV of {rate} Hz', True)


def _lying_channels(chance: random.Random, suffix: str, content: bytes) -> Mutation:
    channels = chance.choice(_FALSE_CHANNELS)
    patched = _patched_wav(_CHANNELS, '<H', channels)
    return Mutation('.wav', patched, f'WAV of {channels} channels', True)


def _lying_size(chance: random.Random, suffix: str, content: bytes) -> Mutation:
    field, offset = chance.choice((('RIFF', _RIFF_SIZE), ('data', _DATA_SIZE)))
    size = chance.choice(_FALSE_SIZES)
    patched = _patched_wav(offset, '<I', size)
    # The largest are what a writer into a pipe states; a RIFF's own size is of no use.
    broken = field == 'data' and size in (2**20, 2**30)
    return Mutation('.wav', patched, f'WAV with a {field} size of {size}', broken)


def _hours_of_flac(chance: random.Random, suffix: str, content: bytes) -> Mutation:
    flac = bytearray(encode('FLAC', 'PCM_16', 0.01))
    samples = chance.randrange(3600 * _SAMPLE_RATE, 2**36)
    flac[21] = flac[21] & 0xF0 | samples >> 32
    flac[22:26] = struct.pack('>I', samples % 2**32)
    hours = samples / _SAMPLE_RATE / 3600
    return Mutation('.flac', bytes(flac), f'FLAC of {len(flac)} bytes and {hours:.1f} hours', True)


def _not_finite(chance: random.Random, suffix: str, content: bytes) -> Mutation:
    number = chance.choice((np.nan, np.inf, -np.inf))
    samples = np.zeros(_SAMPLE_RATE, np.float32)
    samples[chance.randrange(len(samples))] = number
    target = io.BytesIO()
    soundfile.write(target, samples, _SAMPLE_RATE, 'FLOAT', format='WAV')
    return Mutation('.wav', target.getvalue(), f'a sample of {number}', True)


def _patched_wav(offset: int, form: str, number: int) -> bytes:
    content = bytearray(encode('WAV', 'PCM_16', 0.5))
    struct.pack_into(form, content, offset, number)
    return bytes(content)


_Mutator = Callable[[random.Random, str, bytes], Mutation]
_MUTATORS: tuple[_Mutator, ...] = (
    _flip_header,
    _flip_body,
    _truncate,
    _lying_rate,
    _flip_header,
    _overwrite,
    _truncate,
    _lying_channels,
    _flip_header,
    _remove,
    _lying_size,
    _flip_body,
    _break_magic,
    _swap_suffix,
    _hours_of_flac,
    _overwrite,
    _garbage,
    _not_finite,
    _text,
    _empty,
)
_OWN_CONTENT = (
    _lying_rate,
    _lying_channels,
    _lying_size,
    _hours_of_flac,
    _not_finite,
    _garbage,
    _text,
)

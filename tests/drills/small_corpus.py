"""A corpus of sounds with broken files among them."""

import pathlib
import random

import numpy as np
import soundfile

from tests.drills.mutated_audio import write_mutations

# Suffix and subtype; a name's own suffix tells soundfile the rest.
_KINDS = (
    ('.wav', 'PCM_16'),
    ('.wav', 'PCM_24'),
    ('.flac', 'PCM_16'),
    ('.ogg', 'VORBIS'),
    ('.mp3', 'MPEG_LAYER_III'),
)
_RATES = (16_000, 22_050, 32_000, 44_100, 48_000)
_FOLDERS = ('', 'album', 'album/second disc', 'größe')


def write_audio(
    folder: pathlib.Path, count: int, broken: int, seconds: float, seed: int = 0
) -> None:
    """Writes sounds of random lengths, rates, channels and kinds, and broken files.

    Args:
      folder: for them, and for folders of them.
      count: sounds.
      broken: files of `mutated_audio`, of which some can be read.
      seconds: the longest.
      seed: of everything.
    """
    chance, draw = random.Random(seed), np.random.default_rng(seed)
    for number in range(count):
        suffix, subtype = chance.choice(_KINDS)
        rate = chance.choice(_RATES)
        shape = (int(chance.uniform(0.1, seconds) * rate), chance.choice((1, 2)))
        path = folder / chance.choice(_FOLDERS) / f'{number:04d}{suffix}'
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, draw.uniform(-0.5, 0.5, shape), rate, subtype)
    write_mutations(folder / 'broken', seed, broken)

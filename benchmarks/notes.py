"""Renders single notes of six synthetic instruments, and lists them for `m2l_jax.probe`.

    python -m benchmarks.notes --output=/tmp/notes
    python -m m2l_jax.probe --checkpoint=small --data=/tmp/notes/notes.csv \
        --task=instrument,pitch --seeds=3 --output=/tmp/probe

Writes WAV files and `notes.csv` with the columns `path`, `instrument` and `pitch` (MIDI). A note's
loudness, brightness, tuning (up to 20 cents off), attack and noise are drawn, so that no two are
the same; there are no recordings.
"""

import argparse
import csv
import pathlib
from collections.abc import Callable

import numpy as np
import soundfile

RATE = 44_100
LOWEST_PITCH, PITCHES, VARIANTS = 48, 24, 4
_SECONDS = 1.0
_MOST_CENTS = 20
_HIGHEST_HZ = 16_000


def render(
    output: str | pathlib.Path,
    instruments: int = 6,
    pitches: int = PITCHES,
    variants: int = VARIANTS,
    seconds: float = _SECONDS,
    seed: int = 0,
) -> pathlib.Path:
    """Writes the first instruments' notes into a folder, and returns the path of their CSV."""
    folder = pathlib.Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    listed = folder / 'notes.csv'
    with open(listed, 'w', newline='') as file:
        rows = csv.writer(file)
        rows.writerow(('path', 'instrument', 'pitch'))
        for name in list(INSTRUMENTS)[:instruments]:
            for pitch in range(LOWEST_PITCH, LOWEST_PITCH + pitches):
                for variant in range(variants):
                    path = f'{name}-{pitch}-{variant}.wav'
                    note = render_note(name, pitch, seconds, random)
                    soundfile.write(folder / path, note, RATE, subtype='PCM_16')
                    rows.writerow((path, name, pitch))
    return listed


def render_note(name: str, pitch: int, seconds: float, random: np.random.Generator) -> np.ndarray:
    """A note of an instrument of `INSTRUMENTS`, `[samples]` in [-1, 1]."""
    cents = random.uniform(-_MOST_CENTS, _MOST_CENTS)
    frequency = 440 * 2 ** ((pitch - 69 + cents / 100) / 12)
    time = np.arange(round(seconds * RATE)) / RATE
    note = INSTRUMENTS[name](frequency, time, random)
    note = note * np.minimum(1, (seconds - time) / 0.02)  # no click at the end
    note = 10 ** (random.uniform(-18, -3) / 20) * note / np.max(np.abs(note))
    noise = 10 ** (random.uniform(-70, -50) / 20) * random.standard_normal(len(time))
    return np.clip(note + noise, -1, 1)


def _partials(
    time: np.ndarray,
    frequency: float | np.ndarray,
    ratios: np.ndarray,
    levels: np.ndarray,
    decays: np.ndarray | float,
    random: np.random.Generator,
) -> np.ndarray:
    """Sines at multiples of a frequency, which may change, each with its exponential decay."""
    cycles = np.cumsum(np.broadcast_to(frequency, time.shape)) / RATE
    total = np.zeros(len(time))
    decays = np.broadcast_to(decays, ratios.shape)
    for ratio, level, decay in zip(ratios, levels, decays, strict=True):
        if np.max(frequency) * ratio < _HIGHEST_HZ:
            phase = random.uniform(0, 1)
            total += level * np.exp(-decay * time) * np.sin(2 * np.pi * (ratio * cycles + phase))
    return total


def _attack(time: np.ndarray, seconds: float) -> np.ndarray:
    return np.minimum(1, time / seconds)


def _vibrato(time: np.ndarray, cents: float, hertz: float) -> np.ndarray:
    """The factor of a frequency."""
    return 2 ** (cents / 1200 * np.sin(2 * np.pi * hertz * time))


def _organ(frequency: float, time: np.ndarray, random: np.random.Generator) -> np.ndarray:
    ratios = np.array([1, 2, 3, 4, 6, 8])
    levels = np.array([1, 0.8, 0.4, 0.5, 0.2, 0.2]) * random.uniform(0.6, 1.4, 6)
    return _attack(time, 0.01) * _partials(time, frequency, ratios, levels, 0.0, random)


def _clarinet(frequency: float, time: np.ndarray, random: np.random.Generator) -> np.ndarray:
    ratios = np.arange(1, 24, 2)
    levels = ratios ** -random.uniform(1.0, 1.5)
    sound = _partials(time, frequency, ratios, levels, 0.0, random)
    return _attack(time, random.uniform(0.02, 0.08)) * sound


def _string(frequency: float, time: np.ndarray, random: np.random.Generator) -> np.ndarray:
    ratios = np.arange(1, 40)
    moving = frequency * _vibrato(time, random.uniform(5, 20), random.uniform(4.5, 6.5))
    resonances = 1 + np.cos(ratios * frequency / random.uniform(250, 350))
    levels = resonances / ratios
    sound = _partials(time, moving, ratios, levels, 0.0, random)
    return _attack(time, random.uniform(0.05, 0.2)) * sound


def _plucked(frequency: float, time: np.ndarray, random: np.random.Generator) -> np.ndarray:
    ratios = np.arange(1, 30)
    place = random.uniform(0.1, 0.25)  # at which the string is plucked
    levels = np.abs(np.sin(np.pi * ratios * place)) / ratios
    decays = random.uniform(1.5, 3) * (1 + 0.3 * ratios)
    return _partials(time, frequency, ratios, levels, decays, random)


def _bell(frequency: float, time: np.ndarray, random: np.random.Generator) -> np.ndarray:
    ratios = np.array([0.5, 1, 1.19, 1.5, 2, 2.74, 3.76, 5.1, 6.8])
    levels = random.uniform(0.5, 1, 9) / np.sqrt(ratios)
    decays = random.uniform(0.8, 1.5) * (0.5 + ratios)
    return _partials(time, frequency, ratios, levels, decays, random)


def _flute(frequency: float, time: np.ndarray, random: np.random.Generator) -> np.ndarray:
    ratios, levels = np.arange(1, 5), np.array([1, 0.25, 0.1, 0.03])
    moving = frequency * _vibrato(time, random.uniform(2, 10), random.uniform(4, 6))
    breath = np.convolve(random.standard_normal(len(time)), np.hanning(20) / 10, mode='same')
    sound = _partials(time, moving, ratios, levels * random.uniform(0.5, 1.5, 4), 0.0, random)
    return _attack(time, random.uniform(0.03, 0.1)) * (sound + random.uniform(0.03, 0.1) * breath)


INSTRUMENTS: dict[str, Callable[[float, np.ndarray, np.random.Generator], np.ndarray]] = {
    'organ': _organ,
    'clarinet': _clarinet,
    'string': _string,
    'plucked': _plucked,
    'bell': _bell,
    'flute': _flute,
}


def main() -> None:
    """Renders the notes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--output', required=True, help='Folder of the notes.')
    parser.add_argument('--seed', type=int, default=0)
    options = parser.parse_args()
    print(render(options.output, seed=options.seed))


if __name__ == '__main__':
    main()

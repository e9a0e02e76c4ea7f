"""Sing the bundled voice: the first line of a folk song, by pulses through five resonances.

    python -m tools.sing

It writes `m2l_jax/assets/voice/au_clair_de_la_lune.ogg` (44.1 kHz mono Ogg Vorbis), and needs
`pip install numpy scipy soundfile`. There is no recording and no other synthesizer behind it.
"""

from pathlib import Path

import numpy as np
import soundfile as sf
from scipy.signal import lfilter

RATE = 44100
BLOCK = 256  # samples between two changes of the resonances
BEAT = 0.5  # seconds
PATH = Path(__file__).parents[1] / 'm2l_jax/assets/voice/au_clair_de_la_lune.ogg'
# "Au clair de la lune, mon ami Pierrot": vowel, MIDI key, beats.
NOTES = (
    *(('o', 55, 1), ('e', 55, 1), ('@', 55, 1), ('a', 57, 1), ('y', 59, 2), ('@', 57, 2)),
    *(('o', 55, 1), ('a', 59, 1), ('i', 57, 1), ('e', 57, 1), ('o', 55, 4)),
)
FORMANTS = {  # centres in Hz, of a man's voice
    'a': (700, 1220, 2500, 3300, 4200),
    'e': (480, 1850, 2550, 3300, 4200),
    'i': (290, 2200, 2950, 3400, 4200),
    'o': (440, 850, 2450, 3200, 4200),
    'y': (280, 1750, 2250, 3200, 4200),
    '@': (500, 1400, 2400, 3300, 4200),
}
WIDTHS = (70, 90, 130, 200, 280)  # of the resonances, in Hz


def contour(values: list[float], seconds: float) -> np.ndarray:
    """A value a note to one a sample, gliding between notes within some seconds."""
    steps = np.repeat(values, [round(beats * BEAT * RATE) for _, _, beats in NOTES])
    window = np.hanning(round(seconds * RATE) + 2)
    padded = np.pad(steps, (len(window) // 2, (len(window) - 1) // 2), mode='edge')
    return np.convolve(padded, window / window.sum(), mode='valid')


def voice_source(random: np.random.Generator) -> np.ndarray:
    """The glottis: a saw of as many harmonics as fit, with vibrato, unsteadiness and breath."""
    keys = contour([key for _, key, _ in NOTES], 0.08)
    time = np.arange(len(keys)) / RATE
    drift = np.convolve(random.standard_normal(len(keys)), np.hanning(4000) / 45, mode='same')
    keys = keys + 0.25 * np.sin(2 * np.pi * 5.3 * time) + 0.08 * drift
    pitch = 440 * 2 ** ((keys - 69) / 12)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    pulses = sum(
        np.sin(number * phase) * (number * pitch < 12_000) / number for number in range(1, 100)
    )
    return pulses + 0.1 * random.standard_normal(len(keys)) * (1 + np.sin(phase))


def through_mouth(source: np.ndarray) -> np.ndarray:
    """The source through the vowels' resonances, one after another, which change as it goes on."""
    centres = np.array([contour([FORMANTS[v][k] for v, _, _ in NOTES], 0.12) for k in range(5)])
    states, blocks = np.zeros((5, 2)), []
    for begin in range(0, len(source), BLOCK):
        block = source[begin : begin + BLOCK]
        for number, width in enumerate(WIDTHS):
            radius = np.exp(-np.pi * width / RATE)
            angle = 2 * np.pi * centres[number, begin] / RATE
            poles = np.array([1, -2 * radius * np.cos(angle), radius**2])
            block, states[number] = lfilter([poles.sum()], poles, block, zi=states[number])
        blocks.append(block)
    return np.diff(np.concatenate(blocks), prepend=0)  # lips radiate high frequencies better


def levelled(audio: np.ndarray) -> np.ndarray:
    """The same with vowels nearly as loud as each other."""
    window = np.hanning(RATE // 3)
    power = np.convolve(audio**2, window / window.sum(), mode='same')
    return audio / (power + 0.01 * power.max()) ** 0.4


def loudness() -> np.ndarray:
    """Each note's rise and fall: to nothing where the singer breathes, to a part elsewhere."""
    envelopes = []
    for number, (_, _, beats) in enumerate(NOTES):
        time = np.arange(round(beats * BEAT * RATE)) / RATE
        begins, ends = number in (0, 6), number in (5, 10)
        rise = np.minimum(1, time / 0.06)
        fall = np.minimum(1, time[::-1] / (0.3 if ends else 0.05))
        rise, fall = rise if begins else 0.4 + 0.6 * rise, fall if ends else 0.4 + 0.6 * fall
        envelopes.append(rise * fall)
    return np.concatenate(envelopes)


def main() -> None:
    """Write the file."""
    random = np.random.default_rng(0)
    audio = levelled(through_mouth(voice_source(random))) * loudness()
    audio *= 0.7 / np.abs(audio).max()
    audio += 6e-4 * random.standard_normal(len(audio))  # the room
    PATH.parent.mkdir(exist_ok=True)
    sf.write(PATH, audio, RATE, format='OGG', subtype='VORBIS', compression_level=0.5)
    print(f'{PATH.name}: {len(audio) / RATE:.1f} s')


if __name__ == '__main__':
    main()

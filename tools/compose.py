"""Write, render and encode the bundled music: three short public-domain pieces.

Needs the Debian packages fluidsynth and fluid-soundfont-gm, and `pip install mido numpy soundfile`:

    python -m tools.compose

It writes `train/*.ogg` and `heldout/*.ogg` in `m2l_jax/assets` (44.1 kHz stereo Ogg Vorbis).

A score is sections apart by blank lines. A section's first line has the velocity, the transposition
in semitones and the chords ("C | G7 | C G": the chords of a bar share it equally). Then one line a
part, of three kinds:

    violin +1 E4:1.5 D4:.5 R:2 | ...    a melody, here moved up one octave. C4 is middle C, R rests,
                                        ~ holds the last note; a length in beats stays in force
                                        until the next one; every bar must add up.
    piano @4 0232 | x.x.                a pattern on the chords, around octave 4. Its steps divide
                                        the bar equally and its bars repeat: a digit plays that
                                        chord tone counted up from the root, x the whole chord
                                        (X louder, o softer) and "." holds on.
    snare ..x...xX                      a pattern for a drum.
"""

import argparse
import random
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mido
import numpy as np
import soundfile as sf

ASSETS = Path(__file__).parents[1] / 'm2l_jax' / 'assets'
SOUNDFONT = '/usr/share/sounds/sf2/FluidR3_GM.sf2'
RATE = 44100
TICKS = 480  # per beat
DRUM_CHANNEL = 9
PITCHES = {'C': 0, 'D': 2, 'E': 4, 'F': 5, 'G': 7, 'A': 9, 'B': 11}
CHORDS = {'': (0, 4, 7), 'm': (0, 3, 7), '7': (0, 4, 7, 10)}
DRUMS = {'kick': 36, 'snare': 38, 'hat': 42, 'tom': 45, 'crash': 49, 'ride': 51, 'tambourine': 54}
STRESS = {'X': 18, 'o': -22}
INSTRUMENTS = {  # General MIDI program (from 0), volume, pan (64 is the centre)
    'drums': (0, 104, 64),
    'piano': (0, 92, 50),
    'harpsichord': (6, 84, 46),
    'guitar': (24, 84, 84),
    'bass': (33, 98, 64),
    'violin': (40, 104, 52),
    'cello': (42, 108, 74),
    'strings': (48, 72, 72),
    'trumpet': (56, 112, 78),
    'oboe': (68, 84, 80),
    'flute': (73, 92, 56),
}


@dataclass(frozen=True)
class Note:
    """One note: start and length in beats, MIDI key, and stress added to the velocity."""

    start: float
    length: float
    key: int
    stress: int = 0


@dataclass(frozen=True)
class Piece:
    """A piece: its file below this folder, beats per minute, beats per bar, and score."""

    path: str
    tempo: int
    metre: int
    score: str


def bars(text: str) -> list[list[str]]:
    """The words of each bar."""
    return [bar.split() for bar in text.split('|')]


def pitch_class(name: str) -> int:
    """Semitones above C of "F#" or "Bb"."""
    return PITCHES[name[0]] + name.count('#') - name.count('b')


def melody(text: str, metre: int, octave: int) -> list[Note]:
    """The notes of a melody, moved by whole octaves."""
    notes: list[Note] = []
    time, length = 0.0, 1.0
    for number, bar in enumerate(bars(text), start=1):
        for word in bar:
            name, _, written = word.partition(':')
            length = float(written or length)
            if name == '~':
                last = notes.pop()
                notes.append(Note(last.start, last.length + length, last.key))
            elif name != 'R':
                key = pitch_class(name[:-1]) + 12 * (int(name[-1]) + 1 + octave)
                notes.append(Note(time, length, key))
            time += length
        if abs(time - number * metre) > 1e-6:
            raise ValueError(f'bar {number} of {text!r} ends at beat {time}, not {number * metre}')
    return notes


def strokes(text: str, count: int, metre: int) -> Iterator[tuple[int, float, float, float, str]]:
    """A pattern's strokes over `count` bars: bar, place in it (0 to 1), start, length, mark."""
    cycle = [''.join(bar) for bar in bars(text)]
    for bar in range(count):
        steps = cycle[bar % len(cycle)]
        for found in re.finditer(r'[^.]\.*', steps):
            place = found.start() / len(steps)
            length = len(found[0]) / len(steps) * metre
            yield bar, place, (bar + place) * metre, length, found[0][0]


def chord_keys(symbol: str, mark: str, octave: int) -> list[int]:
    """The keys one stroke plays: a chord tone for a digit, else the chord in close position."""
    name, quality = re.fullmatch(r'([A-G][#b]?)(.*)', symbol).groups()
    tones, middle = CHORDS[quality], 12 * (octave + 1)
    low = middle - 6  # roots, and the tones of whole chords, lie in the octave above this key
    root = low + (pitch_class(name) - low) % 12
    if mark.isdigit():
        up, tone = divmod(int(mark), len(tones))
        return [root + tones[tone] + 12 * up]
    return [low + (root + tone - low) % 12 for tone in tones]


def accompaniment(text: str, chords: str, metre: int, octave: int) -> list[Note]:
    """The notes of a pattern played on a chord line."""
    line, notes = bars(chords), []
    for bar, place, start, length, mark in strokes(text, len(line), metre):
        symbol = line[bar][int(place * len(line[bar]))]
        for key in chord_keys(symbol, mark, octave):
            notes.append(Note(start, length, key, STRESS.get(mark, 0)))
    return notes


def part(line: str, chords: str, metre: int) -> tuple[str, list[Note]]:
    """The instrument and notes of one line of a score (instrument "drums" for any drum)."""
    name, text = line.split(maxsplit=1)
    if name in DRUMS:
        hits = strokes(text, len(bars(chords)), metre)
        return 'drums', [Note(hit[2], 0.25, DRUMS[name], STRESS.get(hit[4], 0)) for hit in hits]
    octave, text = text.split(maxsplit=1)
    if octave.startswith('@'):
        return name, accompaniment(text, chords, metre, int(octave[1:]))
    return name, melody(text, metre, int(octave))


def timeline(piece: Piece) -> tuple[list[tuple[int, mido.Message]], dict[str, int]]:
    """The piece's timed note messages (seeded small differences in force), and its channels."""
    chance = random.Random(piece.path)
    events, channels, offset = [], {'drums': DRUM_CHANNEL}, 0
    free = iter(channel for channel in range(16) if channel != DRUM_CHANNEL)
    for section in piece.score.strip().split('\n\n'):
        first, *lines = section.splitlines()
        velocity, transpose, chords = first.split(maxsplit=2)
        for line in lines:
            instrument, notes = part(line, chords, piece.metre)
            if instrument not in channels:
                channels[instrument] = next(free)
            shift = 0 if instrument == 'drums' else int(transpose)
            for note in notes:
                downbeat = 0 if note.start % piece.metre else 8
                force = int(velocity) + note.stress + downbeat + round(chance.uniform(-6, 6))
                where = {'channel': channels[instrument], 'note': note.key + shift}
                start = round((offset + note.start) * TICKS)
                stop = start + round(note.length * TICKS * 0.96)
                on = mido.Message('note_on', velocity=min(max(force, 1), 127), **where)
                events += [(start, on), (stop, mido.Message('note_off', **where))]
        offset += len(bars(chords)) * piece.metre
    return sorted(events, key=lambda event: (event[0], event[1].type == 'note_on')), channels


def write_midi(piece: Piece, path: Path) -> None:
    """Write the piece as a one-track MIDI file."""
    events, channels = timeline(piece)
    track = mido.MidiTrack([mido.MetaMessage('set_tempo', tempo=mido.bpm2tempo(piece.tempo))])
    for instrument, channel in channels.items():
        program, volume, pan = INSTRUMENTS[instrument]
        track.append(mido.Message('program_change', channel=channel, program=program))
        track.append(mido.Message('control_change', channel=channel, control=7, value=volume))
        track.append(mido.Message('control_change', channel=channel, control=10, value=pan))
    now = 0
    for time, message in events:
        track.append(message.copy(time=time - now))
        now = time
    track.append(mido.MetaMessage('end_of_track', time=4 * TICKS))  # lets the last notes ring
    mido.MidiFile(type=0, ticks_per_beat=TICKS, tracks=[track]).save(path)


def render(midi: Path, soundfont: str) -> np.ndarray:
    """Play a MIDI file through fluidsynth, in float so that nothing clips: [frames, 2]."""
    wav = midi.with_suffix('.wav')
    output = ['-F', wav, '-T', 'wav', '-O', 'float', '-r', str(RATE), '-g', '0.5']
    subprocess.run(['fluidsynth', '-niq', *output, soundfont, midi], check=True)
    return sf.read(wav, dtype='float32')[0]


def finish(audio: np.ndarray, peak: float = 0.9, floor: float = 0.02) -> np.ndarray:
    """Set the peak, cut the silence after the last sound and fade the last half second."""
    audio = audio * (peak / np.abs(audio).max())
    audio = audio[: np.flatnonzero(np.abs(audio).max(axis=1) > floor)[-1] + 1]
    ramp = np.linspace(1, 0, RATE // 2, dtype=audio.dtype)
    audio[-len(ramp) :] *= ramp[:, None]
    return audio


def write_ogg(audio: np.ndarray, path: Path, block: int = 65536) -> None:
    """Write Ogg Vorbis a block at a time: libsndfile can crash on one very long Vorbis write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coding = {'format': 'OGG', 'subtype': 'VORBIS', 'compression_level': 0.5}
    with sf.SoundFile(path, 'w', RATE, audio.shape[1], **coding) as file:
        for start in range(0, len(audio), block):
            file.write(audio[start : start + block])


ODE_1 = 'E4:1 E4 F4 G4 | G4 F4 E4 D4 | C4 C4 D4 E4 | E4:1.5 D4:.5 D4:2'
ODE_2 = 'E4 F4 G4 | G4 F4 E4 D4 | C4 C4 D4 E4 | D4:1.5 C4:.5 C4:2'
ODE_3 = (
    'D4:1 D4 E4 C4 | D4 E4:.5 F4 E4:1 C4 | D4 E4:.5 F4 E4:1 D4 | C4 D4 G3 E4 | '
    f'~ {ODE_2}'  # the last note above comes early and is held
)
ODE_SCORE = f"""
72 +0 C | G7 | Am | C G
cello -1 {ODE_1}
piano @4 0243 | 0243 | 0243 | 02.2
bass @2 0...
hat o.x.o.x.
kick x...

80 +0 C | G7 | Am | G C
trumpet +0 E4:1 {ODE_2}
piano @4 x.xo.x.o
bass @2 0.0.2.0.
kick x...x..x | x...xx.. | x...x..x | x.x.x...
snare ..o...o. | ..o...o. | ..o...o. | ..o.ooxX
hat xoxoxoxo

80 +0 G C | G C | G E7 | Am G | C | G7 | Am | G C
violin +1 {ODE_3}
strings @4 x...x...
piano @4 0232023202320232
bass @2 0..00.0.
kick x...x..x | x...xx.. | x...x..x | x.x.x...
snare ..x...x. | ..x...x. | ..x...x. | ..x..xxX
ride x.xxx.xx
crash x | . | . | . | . | . | . | .

92 +3 G C | G C | G E7 | Am G | C | G7 | Am | G C
trumpet +0 {ODE_3}
violin +1 {ODE_3}
strings @4 x...x...
piano @4 x.o.x.oo
bass @2 00000000
kick x...x..x | x...xx.. | x...x..x | x.x.x...
snare ..x...x. | ..x...x. | ..x...x. | ..x..xxX
tom ........ | ........ | ........ | .....xxx
hat xoxoxoxo
tambourine .x.x
crash X | . | . | . | x | . | . | .

92 +3 C
trumpet +0 E4:4
violin +1 C5:4
strings @4 x
piano @4 X
bass @2 0
kick X
crash X
"""

# The first violin's part in six variations, each over the same two bars of bass.
CANON = (
    'F#5:1 E5 D5 C#5 | B4 A4 B4 C#5',
    'D5:1 C#5 B4 A4 | G4 F#4 G4 E4',
    'D4:.5 F#4 A4 G4 F#4 D4 F#4 E4 | D4 B3 D4 A4 G4 B4 A4 G4',
    'F#4:.5 D4 E4 C#5 D5 F#5 A5 A4 | B4 G4 A4 F#4 D4 D5:1 C#5:.5',
    'D5:.25 C#5 D5 D4 C#4 A4 E4 F#4 D4 D5 C#5 B4 C#5 F#5 A5 B5 |'
    'G5 F#5 E5 G5 F#5 E5 D5 C#5 B4 A4 G4 F#4 E4 G4 F#4 E4',
    'A5:.25 F#5:.125 G5 A5:.25 F#5:.125 G5 A5 A4 B4 C#5 D5 E5 F#5 G5 '
    'F#5:.25 D5:.125 E5 F#5:.25 F#4:.125 G4 A4 B4 A4 G4 A4 F#4 G4 A4 |'
    'G4:.25 B4:.125 A4 G4:.25 F#4:.125 E4 F#4 E4 D4 E4 F#4 G4 A4 B4 '
    'G4:.25 B4:.125 A4 B4:.25 C#5:.125 D5 A4 B4 C#5 D5 E5 F#5 G5 A5',
)
CANON_END = """84 +0 D
violin +0 F#5:4
oboe +0 D5:4
flute +0 A4:4
cello +0 D3:4
harpsichord @4 0123............
guitar @3 x..."""


def canon_round(turn: int) -> str:
    """One time through the bass: each voice is one variation behind the voice before it."""
    voices = ('violin', 'oboe', 'flute')[: turn + 1]
    lines = [
        f'{74 + 3 * turn} +0 D A Bm F#m | G D G A',
        'cello +0 D3:1 A2 B2 F#2 | G2 D2 G2 A2',
        f'harpsichord @4 {"0234023402340234" if turn % 2 else "x.x.x.x."}',
        *(f'{voice} +0 {CANON[turn - late]}' for late, voice in enumerate(voices)),
    ]
    return '\n'.join(lines + ['guitar @3 0.2.0.2.0.2.0.2.'] * (turn > 1))


CANON_SCORE = '\n\n'.join([*map(canon_round, range(len(CANON))), CANON_END])

GREEN_1 = 'D5:2 B4:1 G4:1.5 A4:.5 B4:1 | C5:2 A4:1 A4:1.5 G#4:.5 A4:1 | B4:2 G#4:1'
GREEN_2 = 'D5:2 B4:1 G4:1.5 A4:.5 B4:1 | C5:1.5 B4:.5 A4:1 G#4:1.5 F#4:.5 G#4:1 | A4:6'
VERSE = 'C5:2 D5:1 E5:1.5 F#5:.5 E5:1'
CHORUS = 'G5:3 G5:1.5 F#5:.5 E5:1'
GREENSLEEVES_SCORE = f"""
80 +0 Am
flute +0 R:5 A4:1
guitar @3 023432
bass @2 0..0..
tambourine o.xo.x
kick x.....

80 +0 Am | G | Am | E | Am | G | Am E | Am
flute +0 {VERSE} | {GREEN_1} E4:2 A4:1 | {VERSE} | {GREEN_2}
guitar @3 023432
bass @2 0..2.0
strings @4 oo
kick x....x
snare ...o..
hat xoxxox

92 +0 C | G | Am | E7 | C | G | Am E7 | Am
violin +0 {CHORUS} | {GREEN_1} E4:3 | {CHORUS} | {GREEN_2}
trumpet -1 {CHORUS} | {GREEN_1} E4:3 | {CHORUS} | {GREEN_2}
guitar @3 x.oo.o
piano @4 023432
bass @2 0.00.2
strings @4 x..x..
kick X....x
snare ...X.. | ...X.. | ...X.. | ...X.x
hat xoxxox
crash x | . | . | . | x | . | . | .
"""

PIECES = (
    Piece('train/ode_to_joy.ogg', 138, 4, ODE_SCORE),
    Piece('train/canon_in_d.ogg', 68, 4, CANON_SCORE),
    Piece('heldout/greensleeves.ogg', 264, 6, GREENSLEEVES_SCORE),
)


def main() -> None:
    """Render every piece."""
    parser = argparse.ArgumentParser(description='Render the bundled music.')
    parser.add_argument('--soundfont', default=SOUNDFONT)
    parser.add_argument('--out', type=Path, default=ASSETS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for piece in PIECES:
            midi = Path(folder) / 'piece.mid'
            write_midi(piece, midi)
            audio = finish(render(midi, arguments.soundfont))
            write_ogg(audio, arguments.out / piece.path)
            print(f'{piece.path}: {len(audio) / RATE:.1f} s')


if __name__ == '__main__':
    main()

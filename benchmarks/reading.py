"""How fast is audio read and resampled, from each format, and do threads help?

    python -m benchmarks.reading --path=song.flac --seconds=120

Writes the audio in every format, reads each file with one thread and with several, and prints
JSON: times real time, the median of several rounds, by reading whole files and block by block.
"""

import concurrent.futures
import json
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable

import soundfile
from absl import app, flags

from m2l_jax.audio import files

_PATH = flags.DEFINE_string('path', None, 'Audio to read.', required=True)
_SECONDS = flags.DEFINE_float('seconds', 120, 'Of it, for each format.')
_THREADS = flags.DEFINE_list('threads', ['1', '2'], 'At once; each reads all files.')
_ROUNDS = flags.DEFINE_integer('rounds', 3, '')

_SAMPLE_RATE = 44_100
# Name, rate, libsndfile's format and subtype.
_KINDS = (
    ('wav', 44_100, 'WAV', 'PCM_16'),
    ('flac', 44_100, 'FLAC', 'PCM_16'),
    ('flac at 48 kHz', 48_000, 'FLAC', 'PCM_16'),
    ('mp3', 44_100, 'MP3', 'MPEG_LAYER_III'),
    ('vorbis', 44_100, 'OGG', 'VORBIS'),
    ('opus at 48 kHz', 48_000, 'OGG', 'OPUS'),
)
_WRITE_BLOCK = 1 << 16
_BLOCK_SECONDS = 30


def main(_):
    """Reads, and prints the figures."""
    readers = {'whole': _read_whole, 'blocks': _read_blocks}
    with tempfile.TemporaryDirectory() as folder:
        for name, rate, kind, subtype in _KINDS:
            path = pathlib.Path(folder) / 'audio'
            seconds = _write(path, rate, kind, subtype)
            figures = {
                f'{way}, threads {threads}': _times_real_time(read, path, seconds, int(threads))
                for way, read in readers.items()
                for threads in _THREADS.value
            }
            print(json.dumps({'format': name, 'seconds': seconds} | figures), flush=True)


def _write(path: pathlib.Path, rate: int, kind: str, subtype: str) -> float:
    """Writes the audio in a format; returns its seconds."""
    samples = min(int(_SECONDS.value * rate), files.read_info(_PATH.value).samples_at(rate))
    audio = files.read(_PATH.value, rate, 0, samples).T
    with soundfile.SoundFile(path, 'w', rate, audio.shape[1], subtype, format=kind) as file:
        for begin in range(0, len(audio), _WRITE_BLOCK):
            file.write(audio[begin : begin + _WRITE_BLOCK])
    return samples / rate


def _read_whole(path: pathlib.Path) -> None:
    files.read(path, _SAMPLE_RATE)


def _read_blocks(path: pathlib.Path) -> None:
    for _ in files.read_blocks(path, _SAMPLE_RATE, _BLOCK_SECONDS * _SAMPLE_RATE):
        pass


def _times_real_time(
    read: Callable[[pathlib.Path], None], path: pathlib.Path, seconds: float, threads: int
) -> float:
    rates = []
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for _ in range(_ROUNDS.value):
            begin = time.monotonic()
            for reading in [pool.submit(read, path) for _ in range(threads)]:
                reading.result()
            rates.append(threads * seconds / (time.monotonic() - begin))
    return round(statistics.median(rates))


if __name__ == '__main__':
    app.run(main)

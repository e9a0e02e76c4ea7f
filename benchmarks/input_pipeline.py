"""How many crops a second does the host read, and does its memory stay flat?

    python -m benchmarks.input_pipeline --path=/data/music_tfds --representation=waveform

Reads batches as training does, with nothing else running, and prints JSON: crops a second, the
median over windows of batches, and resident memory after the first and the last tenth.
"""

import itertools
import json
import pathlib
import statistics
import time

from absl import app, flags

from m2l_jax.audio.spectrogram import SpectrogramConfig
from m2l_jax.data.config import DataConfig
from m2l_jax.data.crops import CropReader, open_collections
from m2l_jax.data.pipeline import read_batches

_PATH = flags.DEFINE_string('path', None, 'As config.data.path.', required=True)
_REPRESENTATION = flags.DEFINE_enum('representation', 'waveform', ['waveform', 'spectrogram'], '')
_BATCHES = flags.DEFINE_integer('batches', 1000, 'To read, after a tenth as many to warm up.')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 16, 'Crops a batch.')
_CROP_FRAMES = flags.DEFINE_integer('crop_frames', 64, 'Frames a crop.')
_WORKERS = flags.DEFINE_integer('workers', 2, 'As config.data.workers.')

_WINDOWS = 10


def main(_):
    """Reads, and prints the figures."""
    spectrogram = SpectrogramConfig()
    config = DataConfig(
        path=_PATH.value,
        mix=(),
        resident=False,
        batch_size=_BATCH_SIZE.value,
        crop_frames=_CROP_FRAMES.value,
        min_rms=0.001,
        representation=_REPRESENTATION.value,
        workers=_WORKERS.value,
        prefetch=4,
    )
    samples = spectrogram.samples(config.crop_frames)
    reader = CropReader(open_collections(config.collections, 44_100, samples), 0, config.min_rms)
    warm_up, window = max(1, _BATCHES.value // 10), max(1, _BATCHES.value // _WINDOWS)
    steps = range(warm_up + window * _WINDOWS)
    batches = read_batches(reader, config, spectrogram, steps, range(config.batch_size))
    _skip(batches, warm_up)
    rates, memory = [], []
    for _ in range(_WINDOWS):
        begin = time.monotonic()
        _skip(batches, window)
        rates.append(window * config.batch_size / (time.monotonic() - begin))
        memory.append(_resident_megabytes())
    print(
        json.dumps(
            {
                'path': _PATH.value,
                'representation': config.representation,
                'workers': config.workers,
                'batches': window * _WINDOWS,
                'crops_per_second_median': round(statistics.median(rates), 1),
                'crops_per_second_least': round(min(rates), 1),
                'resident_mb_first': memory[0],
                'resident_mb_last': memory[-1],
            }
        )
    )


def _skip(batches, count: int) -> None:
    for _ in itertools.islice(batches, count):
        pass


def _resident_megabytes() -> int:
    status = pathlib.Path('/proc/self/status').read_text()
    line = next(line for line in status.splitlines() if line.startswith('VmRSS'))
    return int(line.split()[1]) // 1000


if __name__ == '__main__':
    app.run(main)

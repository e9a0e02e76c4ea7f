"""How many crops a second does the host read, and does its memory stay flat?

    python -m benchmarks.input --path=/data/music_tfds --representations=waveform
    python -m benchmarks.input --batches=50

Reads batches as training does, by default of the bundled music. Prints the median crops a second
over windows of batches, and resident memory after the first and the last window.
"""

import itertools
import statistics
import time
from typing import Any

from absl import flags

from benchmarks import report, timing
from m2l_jax.audio.spectrogram import SpectrogramConfig
from m2l_jax.data.config import DataConfig
from m2l_jax.data.crops import CropReader
from m2l_jax.data.pipeline import read_batches
from m2l_jax.data.sources import open_collections
from m2l_jax.interface import command

_PATH = flags.DEFINE_string('path', 'm2l_jax/assets/train', 'As config.data.path.')
_REPRESENTATIONS = flags.DEFINE_list('representations', ['waveform', 'spectrogram'], 'To read.')
_BATCHES = flags.DEFINE_integer('batches', 1000, 'To read, after a tenth as many to warm up.')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 16, 'Crops a batch.')
_CROP_FRAMES = flags.DEFINE_integer('crop_frames', 64, 'Frames a crop.')
_WORKERS = flags.DEFINE_integer('workers', 2, 'As config.data.workers.')
_OUTPUT = report.define_output()

_WINDOWS = 10
_SAMPLE_RATE = 44_100
_MIN_RMS = 0.001


def main() -> None:
    """Reads, and prints the figures."""
    results = [_measure(representation) for representation in _REPRESENTATIONS.value]
    figures = {
        'path': _PATH.value,
        'workers': _WORKERS.value,
        'batch_size': _BATCH_SIZE.value,
        'results': results,
    }
    rows = [tuple(results[0])] + [tuple(result.values()) for result in results]
    report.publish(figures, rows, _OUTPUT.value)


def _measure(representation: str) -> dict[str, Any]:
    spectrogram = SpectrogramConfig()
    config = DataConfig(
        path=_PATH.value,
        mix=(),
        resident=False,
        batch_size=_BATCH_SIZE.value,
        crop_frames=_CROP_FRAMES.value,
        min_rms=_MIN_RMS,
        representation=representation,
        workers=_WORKERS.value,
        prefetch=4,
    )
    samples = spectrogram.samples(config.crop_frames)
    collections = open_collections(config.collections, _SAMPLE_RATE, samples)
    reader = CropReader(collections, 0, config.min_rms)
    warm_up, window = max(1, _BATCHES.value // 10), max(1, _BATCHES.value // _WINDOWS)
    steps = range(warm_up + window * _WINDOWS)
    batches = read_batches(reader, config, spectrogram, steps, range(config.batch_size))
    _skip(batches, warm_up)
    rates, resident = [], []
    for _ in range(_WINDOWS):
        begin = time.monotonic()
        _skip(batches, window)
        rates.append(window * config.batch_size / (time.monotonic() - begin))
        resident.append(timing.resident_bytes() // 10**6)
    return {
        'representation': representation,
        'batches': window * _WINDOWS,
        'crops_per_second_median': round(statistics.median(rates), 1),
        'crops_per_second_least': round(min(rates), 1),
        'resident_mb_first': resident[0],
        'resident_mb_last': resident[-1],
    }


def _skip(batches: Any, count: int) -> None:
    for _ in itertools.islice(batches, count):
        pass


if __name__ == '__main__':
    command.run(main)

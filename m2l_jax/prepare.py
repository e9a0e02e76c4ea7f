"""Makes a TFDS dataset for training out of audio files.

    python -m m2l_jax.prepare --input=FOLDER --output=DATA_DIR
    python -m m2l_jax.prepare --input='/data/*/music/**/*.flac,/more/song.wav' --output=DATA_DIR

Every channel, or with --stereo both together, becomes overlapping segments of 16-bit audio at one
rate, with source, offset, peak and RMS, in array_record shards. A second run writes what is
missing. DATA_DIR/failures.csv names files that cannot be used, and DATA_DIR/warnings.csv those with
silent or damaged parts; the exit code is 1 only if no file can be used. To train on it:
--config.data.path=DATA_DIR.
"""

import os
from typing import TYPE_CHECKING

from absl import flags

from m2l_jax.corpus import flags as corpus_flags
from m2l_jax.interface import command

if TYPE_CHECKING:
    from m2l_jax.corpus.plan import RunReport

flags.DEFINE_string(
    'input',
    None,
    'Folder, glob pattern (** for any depth), audio file, or .txt with a path a line; several with '
    'commas.',
)
flags.DEFINE_string('output', None, 'Folder for the dataset: new, or of an earlier run.')
_RATE = flags.DEFINE_integer('sample_rate', 44_100, 'Of the stored audio, in Hz.')
_SECONDS = flags.DEFINE_float('segment_seconds', 5.0, 'Length of a segment.')
_CROP = flags.DEFINE_integer(
    'crop_frames',
    64,
    'Spectrogram frames, 2048 samples each and 512 apart, of the longest crop that will be trained '
    'on; segments overlap by that.',
)
_MIN_RMS = flags.DEFINE_float('min_rms', 0.001, 'Least RMS of a segment to keep; full scale is 1.')
_MEGABYTES = flags.DEFINE_float('shard_megabytes', 128.0, 'Approximate size of a shard.')
_STEREO = flags.DEFINE_bool(
    'stereo',
    False,
    'Keep the channels of a file together, for stereo models; one or two are taken.',
)
_WORKERS = flags.DEFINE_integer(
    'workers', None, 'Shards that are written at once in this process; by default one a core.'
)
corpus_flags.define_sharing()


def main() -> None:
    """Parses the flags and prepares the dataset, or checks one that was prepared."""
    corpus_flags.run(_prepare, devices=False)


def _prepare(source: str, output: str) -> 'RunReport':
    from m2l_jax.corpus.prepare import prepare
    from m2l_jax.data.segments import SegmentConfig

    config = SegmentConfig(
        _RATE.value,
        _SECONDS.value,
        _CROP.value,
        _MIN_RMS.value,
        _MEGABYTES.value,
        _STEREO.value,
    )
    workers = os.cpu_count() or 1 if _WORKERS.value is None else _WORKERS.value
    return prepare(source, output, config, corpus_flags.run_options(workers))


if __name__ == '__main__':
    command.run(main)

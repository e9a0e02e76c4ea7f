"""How audio files are cut into overlapping segments, and which shard each segment goes to.

A training crop has to lie in one segment. Segments overlap by one sample less than a crop, so that
every crop of the file lies in exactly one segment, and none is more likely than another.
"""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Sequence

from m2l_jax.audio.files import AudioInfo
from m2l_jax.audio.spectrogram import SpectrogramConfig
from m2l_jax.data.inputs import AudioFile
from m2l_jax.interface import settings
from m2l_jax.interface.errors import InputError

BYTES_PER_SAMPLE = 2
PREPARATION = 'preparation.json'  # beside the shards: the settings, and the input

# That crops are counted in. A model with another takes crops of another length: `check_crop`.
_SPECTROGRAM = SpectrogramConfig()


@dataclasses.dataclass(frozen=True)
class SegmentConfig:
    """How audio is resampled, cut, sieved and spread over shards.

    Attributes:
      sample_rate: of the stored audio, in Hz.
      segment_seconds: length of a segment, longer than a crop.
      crop_frames: of the longest crop that training will cut: spectrogram frames of 2048 samples,
        512 apart.
      min_rms: segments below this root mean square, of full scale 1, are left out.
      shard_megabytes: of audio in a shard, about, in 10⁶ bytes.
    """

    sample_rate: int
    segment_seconds: float
    crop_frames: int
    min_rms: float
    shard_megabytes: float

    def __post_init__(self):
        for name in ('sample_rate', 'segment_seconds', 'crop_frames', 'shard_megabytes'):
            value = getattr(self, name)
            if not 0 < value < float('inf'):  # NaN neither
                raise InputError(f'--{name}={value} must be a number above 0')
        if not 0 <= self.min_rms < 1:
            raise InputError(f'--min_rms={self.min_rms} must be at least 0 and below 1')
        if self.segment_samples <= self.crop_samples:
            raise InputError(
                f'--segment_seconds={self.segment_seconds} is {self.segment_samples} samples, no '
                f'longer than a crop ({self.crop_samples}): take more than '
                f'{self.crop_samples / self.sample_rate:.2f} s, or fewer --crop_frames'
            )

    @property
    def crop_samples(self) -> int:
        """Samples of a crop."""
        return _SPECTROGRAM.samples(self.crop_frames)

    @property
    def segment_samples(self) -> int:
        """Samples of every segment but a file's last."""
        return round(self.segment_seconds * self.sample_rate)

    @property
    def hop(self) -> int:
        """Samples from one segment's start to the next; the crops that start in a segment."""
        return self.segment_samples - self.crop_samples + 1

    def count(self, samples: int) -> int:
        """Segments of a file of so many samples, at least a crop."""
        crops = samples - self.crop_samples + 1
        return -(-crops // self.hop)

    def bounds(self, number: int, samples: int) -> tuple[int, int]:
        """First sample, and the one after the last, of a segment of a file of so many samples."""
        start = number * self.hop
        return start, min(start + self.segment_samples, samples)


def check_crop(folder: str | os.PathLike[str], sample_rate: int, crop_samples: int) -> None:
    """Makes sure that a dataset's segments overlap by enough for a training's crops.

    A dataset that `prepare` has not written tells nothing, and passes.

    Args:
      folder: of the dataset.
      sample_rate: of the training, in Hz.
      crop_samples: of its crops, at that rate.

    Raises:
      InputError: if its crops are longer, for then some of them lie in no segment.
    """
    path = pathlib.Path(folder, PREPARATION)
    if not path.exists():
        return
    try:
        earlier = json.loads(path.read_text())
        config = settings.build(SegmentConfig, earlier['settings'], 'settings')
    except (OSError, ValueError, LookupError, TypeError):
        raise InputError(f'{path} is damaged: prepare the dataset again') from None
    needed = math.ceil(crop_samples * config.sample_rate / sample_rate)
    if needed > config.crop_samples:
        frames = 1 + math.ceil((needed - _SPECTROGRAM.window) / _SPECTROGRAM.hop)
        raise InputError(
            f'{folder} was prepared for crops of at most {config.crop_samples} samples, and those '
            f'of this training have {needed}, at {config.sample_rate} Hz: prepare it with '
            f'--crop_frames={frames}, or lower config.data.crop_frames'
        )


@dataclasses.dataclass(frozen=True)
class Piece:
    """Consecutive segments of a file, from number `first` to before `stop`."""

    info: AudioInfo
    source: str
    first: int
    stop: int


def plan_shards(files: Sequence[AudioFile], config: SegmentConfig) -> list[tuple[Piece, ...]]:
    """Spreads the segments of usable files over shards of about `shard_megabytes`.

    Files are taken in the order of a hash of their names, so that a shard is not one album, and
    their segments fill one shard after another: a file that does not fit goes on in the next, so
    that an hour-long one is the work of several processes. The same files and settings give the
    same plan, in whatever order they are listed.
    """
    budget = config.shard_megabytes * 1e6
    shards, pieces, room = [], [], budget
    for file in sorted(files, key=_shuffled):
        cost = config.segment_samples * file.info.channels * BYTES_PER_SAMPLE
        first, count = 0, config.count(file.info.samples_at(config.sample_rate))
        while first < count:
            taken = min(count - first, max(int(room // cost), 0 if pieces else 1))
            if taken:
                pieces.append(Piece(file.info, file.source, first, first + taken))
                first, room = first + taken, room - taken * cost
            else:
                shards.append(tuple(pieces))
                pieces, room = [], budget
    return [*shards, tuple(pieces)] if pieces else shards


def _shuffled(file: AudioFile) -> bytes:
    return hashlib.blake2b(file.source.encode()).digest()

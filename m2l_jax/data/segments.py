"""How audio files are cut into overlapping segments, and which shard each segment goes to.

A training crop has to lie in one segment. Segments overlap by one sample less than a crop, so that
every crop of the file lies in exactly one segment, and none is more likely than another.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

from m2l_jax.audio.files import AudioInfo
from m2l_jax.audio.spectrogram import SpectrogramConfig
from m2l_jax.data.inputs import AudioFile
from m2l_jax.interface.errors import InputError

BYTES_PER_SAMPLE = 2


@dataclasses.dataclass(frozen=True)
class SegmentConfig:
    """How audio is resampled, cut, sieved and spread over shards.

    Attributes:
      sample_rate: of the stored audio, in Hz.
      segment_seconds: length of a segment, longer than a crop.
      crop_frames: spectrogram frames of the longest crop that training will cut.
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
        return SpectrogramConfig().samples(self.crop_frames)

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

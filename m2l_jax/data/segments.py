"""Overlapping segments into which `prepare` cuts audio files.

Segments overlap by one sample less than a crop: every crop of a file lies in exactly one segment,
so that all are equally likely.
"""

import dataclasses
import json
import math
import os
import pathlib
from typing import Any

from m2l_jax.audio.spectrogram import SpectrogramConfig
from m2l_jax.interface import settings
from m2l_jax.interface.errors import InputError

_NOTES = ('job.json', 'preparation.json')  # of `prepare`, the second of earlier versions

# Of `crop_frames`. Models with other spectrograms are checked by `check_crop`.
_SPECTROGRAM = SpectrogramConfig()


@dataclasses.dataclass(frozen=True)
class SegmentConfig:
    """Settings by which audio is resampled, cut, filtered and spread over shards.

    Attributes:
      sample_rate: of the stored audio, in Hz.
      segment_seconds: length of a segment, longer than a crop.
      crop_frames: frames, of 2048 samples and 512 apart, of the longest crop in training.
      min_rms: least root mean square of a segment, for full scale 1.
      shard_megabytes: of audio in a shard, approximately, in 10⁶ bytes.
      stereo: a segment has all channels of a file, one or two, rather than one of them.
    """

    sample_rate: int
    segment_seconds: float
    crop_frames: int
    min_rms: float
    shard_megabytes: float
    stereo: bool = False

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

    def record(self) -> dict[str, Any]:
        """Fields as a job's notes hold them, for JSON."""
        fields = dataclasses.asdict(self)
        if not self.stereo:  # as in notes of earlier versions
            del fields['stereo']
        return fields

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
        """Segments of a file of `samples`, at least a crop."""
        crops = samples - self.crop_samples + 1
        return -(-crops // self.hop)

    def bounds(self, number: int, samples: int) -> tuple[int, int]:
        """First sample of a segment of a file of `samples`, and the one after its last."""
        start = number * self.hop
        return start, min(start + self.segment_samples, samples)


def read_config(folder: str | os.PathLike[str]) -> SegmentConfig | None:
    """Reads the settings of a prepared folder, or raises InputError; None for other folders."""
    for path in (pathlib.Path(folder, name) for name in _NOTES):
        if not path.exists():
            continue
        try:
            noted = json.loads(path.read_text())['settings']
            if 'crop_frames' in noted:
                return settings.build(SegmentConfig, noted, 'settings')
        except (OSError, ValueError, LookupError, TypeError):
            raise InputError(f'{path} is damaged: prepare the dataset again') from None
    return None


def check_crop(folder: str | os.PathLike[str], sample_rate: int, crop_samples: int) -> None:
    """Checks that a prepared dataset's segments overlap enough; other datasets pass.

    Args:
      folder: of the dataset.
      sample_rate: of the training, in Hz.
      crop_samples: length of its crops, at that rate.

    Raises:
      InputError: if crops of this length would lie in no segment.
    """
    config = read_config(folder)
    if config is None:
        return
    needed = math.ceil(crop_samples * config.sample_rate / sample_rate)
    if needed > config.crop_samples:
        frames = 1 + math.ceil((needed - _SPECTROGRAM.window) / _SPECTROGRAM.hop)
        raise InputError(
            f'{folder} was prepared for crops of at most {config.crop_samples} samples, and those '
            f'of this training have {needed}, at {config.sample_rate} Hz: prepare it with '
            f'--crop_frames={frames}, or lower config.data.crop_frames'
        )

"""Settings of the training audio."""

import dataclasses
import math

from m2l_jax.interface.errors import InputError


@dataclasses.dataclass(frozen=True)
class Collection:
    """A part of the mix: audio under `path`, drawn with probability `weight`."""

    name: str
    path: str
    weight: float


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The training audio, and the batches that are cut from it.

    Attributes:
      path: a collection: a folder of audio files (searched recursively), a file, a pattern or a
        list, several separated by commas; a prepared dataset's folder; or `tfds:NAME[SPLIT]`, a
        TFDS dataset.
      mix: several collections instead, `(name, path, weight)` each; the weights add up to 1.
      resident: keeps the whole corpus in device memory, where the devices cut crops. Then every
        usable second of a collection is equally likely; otherwise, records of datasets are.
      batch_size: crops a step, over all devices of all hosts.
      crop_frames: spectrogram frames of a crop, a multiple of the model's time downsampling.
      min_rms: crops below this root mean square are redrawn.
      representation: 'spectrogram' to compute it in the pipeline, 'waveform' in the step.
      workers: crops that each process reads in parallel.
      prefetch: batches kept ready.
    """

    path: str
    mix: tuple[tuple[str, str, float], ...]
    resident: bool
    batch_size: int
    crop_frames: int
    min_rms: float
    representation: str
    workers: int
    prefetch: int

    def __post_init__(self):
        if self.representation not in ('spectrogram', 'waveform'):
            raise InputError(
                f'config.data.representation={self.representation!r} must be '
                "'spectrogram' or 'waveform'"
            )
        for name in ('batch_size', 'crop_frames', 'workers', 'prefetch'):
            if getattr(self, name) < 1:
                raise InputError(f'config.data.{name}={getattr(self, name)} must be at least 1')
        if bool(self.path) == bool(self.mix):
            both = 'are both set' if self.path else 'are not set'
            raise InputError(
                f'config.data.path and config.data.mix {both}: pass --config.data.path=FOLDER '
                "or --config.data.mix=\"(('NAME', 'FOLDER', WEIGHT), ...)\""
            )
        names = [name for name, _, _ in self.mix]
        for entry in self.mix:
            name, path, weight = entry
            if not name.strip() or not path.strip():
                raise InputError(f'config.data.mix: {entry} lacks a name or a path')
            if names.count(name) > 1:
                raise InputError(f'config.data.mix has two collections of the name {name!r}')
            if not weight > 0:
                raise InputError(
                    f'config.data.mix: the weight {weight} of {name!r} must be above 0'
                )
        total = sum(weight for _, _, weight in self.mix)
        if self.mix and not math.isclose(total, 1, abs_tol=1e-6):
            raise InputError(f'config.data.mix: the weights add up to {total:g}, not to 1')

    @property
    def collections(self) -> tuple[Collection, ...]:
        """The mix; a single `path` is a mix of one."""
        mix = self.mix or ((self.path, self.path, 1.0),)
        return tuple(Collection(*entry) for entry in mix)

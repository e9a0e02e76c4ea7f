"""What training audio is drawn from: the one interface of audio files and datasets."""

import os
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from m2l_jax.data import audio_dataset, audio_folder
from m2l_jax.data.segments import PREPARATION
from m2l_jax.interface.errors import InputError


class Place(Protocol):
    """Where a source found a crop; what else it holds is the source's own business."""

    @property
    def item(self) -> str:
        """The file or record, for messages."""


class Source(Protocol):
    """A collection of audio. Thread-safe; what it gives depends on the arguments alone."""

    skipped: tuple[str, ...]  # why items are left out, a message that names its item each
    samples: int | None  # of all channels of all items, where that is known without reading them

    def describe(self) -> str:
        """One line for the log."""

    def fingerprint(self) -> str:
        """Changes with what is drawn from, but not with where that lies."""

    def draw(self, random: np.random.Generator) -> Place:
        """A random crop's place, wherever it may turn out to be silent or damaged."""

    def read(self, place: Place) -> np.ndarray:
        """The crop, `[samples]`, float32; an InputError that names a damaged item."""

    def items(self) -> Iterator[tuple[str, np.ndarray | str]]:
        """Every item's name, and its waveform `[channels, samples]` or why it cannot be read."""


def open_source(path: str, sample_rate: int, crop_samples: int) -> Source:
    """Opens audio files or a dataset, whichever `path` names.

    Args:
      path: as in `DataConfig.path`.
      sample_rate: at which audio is wanted, in Hz.
      crop_samples: length of a crop.

    Raises:
      InputError: if there is nothing of that name, or nothing in it that can be used.
    """
    if audio_dataset.is_dataset(path):
        return audio_dataset.AudioDataset(path, sample_rate, crop_samples)
    if os.path.exists(os.path.join(audio_dataset.split_of(path)[0], PREPARATION)):
        raise InputError(f'{path} is no complete dataset: run `prepare` to its end first')
    return audio_folder.scan(path, sample_rate, crop_samples)

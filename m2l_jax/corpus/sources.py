"""What the items of a corpus hold: pieces of audio, each of which is described and read."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from m2l_jax.audio import files
from m2l_jax.corpus.plan import Item


class AudioSource(Protocol):
    """A piece of audio.

    Attributes:
      name: by which it is stored.
    """

    name: str

    def describe(self, sample_rate: int) -> tuple[int, int]:
        """Samples at a given rate, and channels; raises InputError."""

    def blocks(self, sample_rate: int, block_samples: int) -> Iterator[np.ndarray]:
        """Consecutive `[channels, block_samples]`, the last one shorter; raises InputError."""


@dataclasses.dataclass(frozen=True)
class FileSource:
    """An audio file; see `AudioSource`."""

    name: str
    path: str

    def describe(self, sample_rate: int) -> tuple[int, int]:
        """As its header has it."""
        info = files.read_info(self.path)
        return info.samples_at(sample_rate), info.channels

    def blocks(self, sample_rate: int, block_samples: int) -> Iterator[np.ndarray]:
        """Decoded once, and in memory for one block."""
        return files.read_blocks(self.path, sample_rate, block_samples)


def list_sources(items: Sequence[Item]) -> list[AudioSource]:
    """What is to be encoded of these items."""
    return [FileSource(item.source, item.path) for item in items]

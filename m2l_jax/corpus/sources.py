"""What the items of a corpus hold: pieces of audio, or latents of them."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from m2l_jax.audio import files
from m2l_jax.audio.levels import Levels
from m2l_jax.corpus.plan import Item
from m2l_jax.corpus.store import StoredLatents, read_any
from m2l_jax.data.tfds import AudioRecords


class AudioSource(Protocol):
    """A piece of audio.

    Attributes:
      name: by which it is stored.
    """

    name: str

    def describe(self, sample_rate: int) -> tuple[int, int, str]:
        """Samples at a given rate, channels, and a warning or ''; raises InputError."""

    def blocks(self, sample_rate: int, block_samples: int, levels: Levels) -> Iterator[np.ndarray]:
        """Consecutive `[channels, block_samples]`, the last one shorter; raises InputError.

        What is decoded is added to `levels`.
        """


@dataclasses.dataclass(frozen=True)
class FileSource:
    """An audio file; see `AudioSource`."""

    name: str
    path: str

    def describe(self, sample_rate: int) -> tuple[int, int, str]:
        """As it is stored."""
        info = files.read_info(self.path)
        return info.samples_at(sample_rate), info.channels, info.warning

    def blocks(self, sample_rate: int, block_samples: int, levels: Levels) -> Iterator[np.ndarray]:
        """Decoded once, and in memory for one block."""
        return files.read_blocks(self.path, sample_rate, block_samples, levels=levels)


@dataclasses.dataclass(frozen=True)
class RecordSource:
    """A record of a dataset, `records`; see `AudioSource`.

    Records are held whole, and read twice: only reading one tells how long it is.
    """

    name: str
    records: AudioRecords
    number: int

    def describe(self, sample_rate: int) -> tuple[int, int, str]:
        """As it is."""
        channels, samples = self.records.read(self.number, sample_rate).shape
        return samples, channels, ''

    def blocks(self, sample_rate: int, block_samples: int, levels: Levels) -> Iterator[np.ndarray]:
        """All of it in one block."""
        waveform = self.records.read(self.number, sample_rate)
        levels.add(waveform.T)
        yield waveform


def audio_sources(items: Sequence[Item]) -> list[AudioSource]:
    """What is to be encoded of these items.

    Raises:
      InputError: if a dataset cannot be opened.
    """
    paths = {item.path for item in items if item.record is not None}
    datasets = {path: AudioRecords(path) for path in paths}
    return [
        FileSource(item.source, item.path)
        if item.record is None
        else RecordSource(item.source, datasets[item.path], item.record)
        for item in items
    ]


def is_latent_shard(path: str) -> bool:
    """True for a shard of a dataset of latents, and not for a file by itself."""
    return '.array_record-' in os.path.basename(path)


def read_latent_item(item: Item) -> Iterator[tuple[str, StoredLatents]]:
    """The names and latents of the files that an item holds: one, or a dataset's shard.

    Those of a file are as `store.read_any` gives them.

    Raises:
      InputError: if it cannot be read.
    """
    if not is_latent_shard(item.path):
        yield item.source, read_any(item.path)
        return
    from m2l_jax.corpus import latent_dataset  # TFDS, which takes seconds to import

    records = latent_dataset.read_format(os.path.dirname(item.path))
    yield from latent_dataset.read_shard(item.path, records)

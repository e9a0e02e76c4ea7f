"""Where the training step gets its batch from: the host's pipeline, or device memory."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec

from m2l_jax.data import resident
from m2l_jax.data.config import Collection
from m2l_jax.data.crops import CropReader, Source, open_collections
from m2l_jax.interface.errors import InputError
from m2l_jax.training import mesh as meshes
from m2l_jax.training.config import TrainingConfig
from m2l_jax.training.step import Fetch, step_key

# Folded into a step's key for its crops, as the rows' numbers are for their noise: no row has it.
_CROPS = (1 << 32) - 1


class Feed(Protocol):
    """What the training step is called with, where that lives, and what it makes of it."""

    specs: Any  # partition specs of what `batches` yields
    fetch: Fetch
    reported: dict[str, str]  # item -> why it, or some of it, was not used
    fingerprint: str  # of all that crops can be drawn from

    def batches(self, steps: range) -> Iterator[Any]:
        """Yields what the step is called with, for each of the steps."""

    def items(self, step: int) -> list[str]:
        """The files or records that a step's global batch comes from."""


def open_feed(settings: TrainingConfig, mesh: Mesh, state_bytes: int = 0) -> Feed:
    """Opens the data, and makes sure that each collection has a crop to train on.

    Args:
      settings: of the training.
      mesh: the devices.
      state_bytes: of the training's state that each device is to hold besides.

    Raises:
      InputError: if a collection is missing or of no use, or the corpus too large for the devices.
    """
    data, rate = settings.data, settings.model.spectrogram.sample_rate
    mix = open_collections(data.collections, rate, settings.crop_samples)
    fingerprint = _fingerprint(mix)
    if data.resident:
        loader = resident.ResidentLoader(
            mesh, meshes.AXIS, settings.crop_samples, data.min_rms, state_bytes
        )
        return ResidentFeed(settings, fingerprint, loader, loader.load(mix))
    reader = CropReader(mix, settings.seed, data.min_rms)
    reader.check()
    return HostFeed(settings, fingerprint, reader, mesh)


def _fingerprint(mix: Sequence[tuple[Collection, Source]]) -> str:
    """Of what each collection holds; makes sure that all processes see the same.

    Raises:
      InputError: if they do not, for then each would draw crops of its own.
    """
    digest = hashlib.sha256()
    for collection, source in mix:
        digest.update(f'{collection.weight} {source.fingerprint()} '.encode())
    mine = np.frombuffer(digest.digest()[:16], np.uint8)
    everyones = multihost_utils.process_allgather(mine).reshape(-1, len(mine))
    if np.any(everyones != everyones[0]):
        raise InputError(
            'the processes do not see the same audio files or datasets: '
            'make data.path the same folder, with the same content, on every host'
        )
    return mine.tobytes().hex()


class HostFeed:
    """Batches read by the hosts, each of them its own rows."""

    specs: PartitionSpec = meshes.ROWS

    def __init__(self, settings: TrainingConfig, fingerprint: str, reader: CropReader, mesh: Mesh):
        self.fingerprint = fingerprint
        self._settings, self._reader, self._mesh = settings, reader, mesh

    @property
    def reported(self) -> dict[str, str]:
        """Item -> why it, or some of it, was not used."""
        return self._reader.reported

    @staticmethod
    def fetch(batch: jax.Array, step: jax.Array) -> jax.Array:
        """The batch is what the step was called with."""
        return batch

    def batches(self, steps: range) -> Iterator[jax.Array]:
        """Yields each step's batch over the mesh."""
        from m2l_jax.data.pipeline import read_batches  # TensorFlow's, which nothing else needs

        data = self._settings.data
        rows = meshes.local_rows(data.batch_size)
        spectrogram = self._settings.model.spectrogram
        for batch in read_batches(self._reader, data, spectrogram, steps, rows):
            yield meshes.to_global_batch(batch, self._mesh)

    def items(self, step: int) -> list[str]:
        """The files or records that a step's global batch comes from."""
        rows = range(self._settings.data.batch_size)
        return [self._reader.locate(step, row).item for row in rows]


class ResidentFeed:
    """Crops cut by the devices from the corpus that they hold."""

    specs = resident.ResidentCorpus.specs(meshes.AXIS)

    def __init__(
        self,
        settings: TrainingConfig,
        fingerprint: str,
        loader: resident.ResidentLoader,
        corpus: resident.ResidentCorpus,
    ):
        self.fingerprint = fingerprint
        self._settings, self._loader, self._corpus = settings, loader, corpus

    @property
    def reported(self) -> dict[str, str]:
        """Item -> why it, or some of it, was not used."""
        return self._loader.reported

    def fetch(self, corpus: resident.ResidentCorpus, step: jax.Array) -> jax.Array:
        """This device's rows of the step's batch, waveforms."""
        settings = self._settings
        size, length = settings.data.batch_size, settings.crop_samples
        return resident.cut_crops(corpus, self._key(step), size, length, meshes.AXIS)

    def batches(self, steps: range) -> Iterator[resident.ResidentCorpus]:
        """Yields the corpus, for each of the steps."""
        for _ in steps:
            yield self._corpus

    def items(self, step: int) -> list[str]:
        """The files or records that a step's global batch comes from."""
        batch_size = self._settings.data.batch_size
        return self._loader.items_of(self._corpus, self._key(step), batch_size)

    def _key(self, step: int | jax.Array) -> jax.Array:
        return jax.random.fold_in(step_key(self._settings.seed, step), jnp.uint32(_CROPS))

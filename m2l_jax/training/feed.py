"""The source of the training step's batches: the host's pipeline, or device memory."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from m2l_jax.data import resident
from m2l_jax.data.crops import CropReader
from m2l_jax.data.sources import open_collections
from m2l_jax.interface.errors import InputError
from m2l_jax.training import mesh as meshes
from m2l_jax.training.config import TrainingConfig
from m2l_jax.training.step import Fetch, as_given, step_key

# Folded into a step's key for its crops, as row numbers are for noise: no row has it.
_CROPS = (1 << 32) - 1


@dataclasses.dataclass(frozen=True)
class Feed:
    """The training step's data.

    Attributes:
      fingerprint: of the corpus.
      batches: yields the step's second argument for each of the given steps.
      items: lists the files or records that a step's global batch comes from.
      reported: item -> why it, or part of it, was not used.
      specs: partition specs of what `batches` yields.
      fetch: makes of it, in the step, each device's rows.
    """

    fingerprint: str
    batches: Callable[[range], Iterator[Any]]
    items: Callable[[int], list[str]]
    reported: Mapping[str, str]
    specs: Any = meshes.ROWS
    fetch: Fetch = as_given


def batch_shape(settings: TrainingConfig, mesh: Mesh) -> jax.ShapeDtypeStruct:
    """Shape and sharding of a batch that the hosts read: spectrograms or waveforms."""
    data, model = settings.data, settings.model
    shape = model.waveform_shape(settings.crop_samples)
    if data.representation == 'spectrogram' and not data.resident:
        shape = (model.spectrogram.bins, data.crop_frames, model.channels)
    rows = NamedSharding(mesh, meshes.ROWS)
    return jax.ShapeDtypeStruct((data.batch_size, *shape), jnp.float32, sharding=rows)


def open_feed(settings: TrainingConfig, mesh: Mesh, state_bytes: int = 0) -> Feed:
    """Opens the data, and checks that each collection has a crop to train on.

    Args:
      settings: of the training.
      mesh: the devices.
      state_bytes: memory that the training's state takes on each device.

    Raises:
      InputError: if a collection is missing or has no crop, processes see different data, or the
        corpus is too large for the devices.
    """
    data, model = settings.data, settings.model
    stereo, rate = model.audio_channels > 1, model.spectrogram.sample_rate
    mix = open_collections(data.collections, rate, settings.crop_samples, stereo)
    digest = hashlib.sha256()
    for collection, source in mix:
        digest.update(f'{collection.weight} {source.fingerprint()} '.encode())
    fingerprint = digest.digest()[:16].hex()
    if len(set(meshes.gather_json(fingerprint))) > 1:  # each would draw crops of its own
        raise InputError(
            'the processes do not see the same audio files or datasets: '
            'make data.path the same folder, with the same content, on every host'
        )
    if data.resident:
        loader = resident.ResidentLoader(
            mesh,
            meshes.AXIS,
            settings.crop_samples,
            data.min_rms,
            state_bytes,
            model.audio_channels,
        )
        return _resident_feed(settings, fingerprint, loader, loader.load(mix))

    reader = CropReader(mix, settings.seed, data.min_rms)
    reader.check()

    def batches(steps: range) -> Iterator[jax.Array]:
        from m2l_jax.data.pipeline import read_batches  # loads TensorFlow

        rows = meshes.local_rows(data.batch_size)
        for batch in read_batches(reader, data, model.spectrogram, steps, rows, model.layout):
            yield meshes.to_global_batch(batch, mesh)

    def items(step: int) -> list[str]:
        return [reader.locate(step, row).item for row in range(data.batch_size)]

    return Feed(fingerprint, batches, items, reader.reported)


def _resident_feed(
    settings: TrainingConfig,
    fingerprint: str,
    loader: resident.ResidentLoader,
    corpus: resident.ResidentCorpus,
) -> Feed:
    """Waveforms that the devices cut from the corpus in their memory."""
    size, length = settings.data.batch_size, settings.crop_samples

    def key(step: int | jax.Array) -> jax.Array:
        return jax.random.fold_in(step_key(settings.seed, step), jnp.uint32(_CROPS))

    return Feed(
        fingerprint,
        batches=lambda steps: (corpus for _ in steps),
        items=lambda step: loader.items_of(corpus, key(step), size),
        reported=loader.reported,
        specs=resident.ResidentCorpus.specs(meshes.AXIS),
        fetch=lambda corpus, step: resident.cut_crops(corpus, key(step), size, length, meshes.AXIS),
    )

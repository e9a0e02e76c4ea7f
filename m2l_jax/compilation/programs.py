"""The programs to compile, for arrays that do not exist: training step, encoding, decoding."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from m2l_jax.codec.batches import on_each_device
from m2l_jax.codec.rows import decode_waveforms, encode_waveforms, waveform_samples
from m2l_jax.consistency.keys import random_key
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.model.ops import kernels_for
from m2l_jax.training import mesh as meshes
from m2l_jax.training.config import TrainingConfig
from m2l_jax.training.feed import batch_shape
from m2l_jax.training.setup import Setup


@dataclasses.dataclass(frozen=True)
class Program:
    """A jitted function and the shapes, types and shardings of its arguments.

    `rows_per_chip` counts crops of a batch or chunks of audio; `notes` name work that is left out.
    """

    name: str
    function: Any
    arguments: tuple[Any, ...]
    rows_per_chip: int
    notes: tuple[str, ...] = ()


def train_program(settings: TrainingConfig, mesh: Mesh) -> Program:
    """The training step as `training.loop` makes it, fed by the host."""
    setup = Setup(settings, mesh)
    rows = settings.data.batch_size
    steps = _placed(setup.steps, meshes.replicated(mesh))
    arguments = setup.state, batch_shape(settings, mesh), steps
    notes, parts = [], settings.train.accumulate
    if parts > 1:
        notes.append(
            f"work, traffic and time of {parts - 1} of the {parts} parts of a chip's crops"
        )
    if settings.data.resident:
        notes.append('the resident corpus and the cutting of crops from it')
    return Program('train', setup.make_step(), arguments, rows // mesh.size, tuple(notes))


def codec_program(
    name: str, settings: TrainingConfig, mesh: Mesh, frames: int, chunks: int = 1
) -> Program:
    """Encoding or decoding with one denoising step, as the codec does it.

    Args:
      name: 'encode' or 'decode'.
      settings: of which the model counts.
      mesh: chunks are shared out over it.
      frames: spectrogram frames of a chunk.
      chunks: of a chip.
    """
    config = settings.model
    model = Music2Latent(config, kernels_for(mesh.devices.flat[0]))
    params = jax.tree.map(
        lambda leaf: _placed(leaf, meshes.replicated(mesh)),
        jax.eval_shape(model.init_params, random_key(0)),
    )
    rows, latents = chunks * mesh.size, frames // config.time_downsampling
    counts = _rows((rows,), jnp.int32, mesh)
    if name == 'encode':
        shape = config.waveform_shape(waveform_samples(config, latents))
        waveforms = _rows((rows, *shape), jnp.float32, mesh)
        function = on_each_device(functools.partial(encode_waveforms, model), mesh)
        return Program(name, jax.jit(function), (params, waveforms, counts, counts), chunks)
    keys = jax.eval_shape(lambda: jax.random.split(random_key(0), rows))
    arguments = (
        params,
        _rows((rows, config.latent_channels, latents), jnp.float32, mesh),
        _rows(keys.shape, keys.dtype, mesh),
        _rows((rows, latents), jnp.int32, mesh),
        counts,
        counts,
    )
    function = on_each_device(functools.partial(decode_waveforms, model, steps=1), mesh)
    return Program(name, jax.jit(function), arguments, chunks)


def _placed(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _rows(shape: tuple[int, ...], dtype: Any, mesh: Mesh) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, meshes.ROWS))

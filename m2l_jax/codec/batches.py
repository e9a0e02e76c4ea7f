"""Rows of any length in, results of the same lengths out: batched, padded, run, cut again."""

import dataclasses
import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from m2l_jax.codec.chunks import Chunk, bucket
from m2l_jax.codec.compiler_options import inference_options
from m2l_jax.codec.placement import Names, find_devices, names_of
from m2l_jax.codec.rows import channel_key, decode_waveforms, encode_waveforms, waveform_samples
from m2l_jax.interface.devices import standard_jax
from m2l_jax.model.autoencoder import Music2Latent, Params
from m2l_jax.model.ops import kernels_for

Row = TypeVar('Row', 'AudioRow', 'LatentRow')


@dataclasses.dataclass(frozen=True)
class AudioRow:
    """One channel of a chunk of audio.

    Attributes:
      chunk: which one.
      pieces: `[samples]` of the stretch, and of what completes it if anything does: 4096 a latent
        vector, and each 1536 more.
    """

    chunk: Chunk
    pieces: tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True)
class LatentRow:
    """One channel of a chunk of latents.

    Attributes:
      chunk: which one.
      latents: `[64, chunk.length]`.
      channel: number of the audio channel, for its noise.
    """

    chunk: Chunk
    latents: np.ndarray
    channel: int


def latent_rows(latents: np.ndarray, chunks: Iterable[Chunk]) -> list[LatentRow]:
    """The rows of each chunk of `[channels, 64, frames]`."""
    return [
        LatentRow(chunk, channel_latents[:, chunk.positions], channel)
        for chunk in chunks
        for channel, channel_latents in enumerate(latents)
    ]


class RowRunner:
    """A model's programs, compiled once for each shape, on one device or shared out among several.

    Threads may share it: one at a time computes, while others prepare and take away.

    Args:
      model: the model.
      devices: each takes the same number of rows; None for JAX's default one.
    """

    def __init__(self, model: Music2Latent, devices: Sequence[jax.Device] | None = None):
        self._devices = devices
        self.devices = 1 if devices is None else len(devices)
        self._lock = threading.Lock()
        self._mesh = None if devices is None else Mesh(np.asarray(devices), ('data',))
        platform = jax.default_backend() if devices is None else devices[0].platform
        options = inference_options(platform)
        self.model = model = model.clone(kernels=kernels_for(platform))
        self._config = model.config
        self.encode_program = jax.jit(
            on_each_device(functools.partial(encode_waveforms, model), self._mesh),
            static_argnames='method',
            compiler_options=options,
        )
        self.decode_program = jax.jit(
            on_each_device(functools.partial(decode_waveforms, model), self._mesh),
            static_argnames='steps',
            compiler_options=options,
        )

    def __reduce__(self):
        return _reopen, (self.model, names_of(self._devices))

    @standard_jax()
    def place(self, params: Params) -> Params:
        """The parameters, on the devices."""
        return self._put(params, PartitionSpec())

    @standard_jax()
    def encode(
        self, params: Params, rows: Sequence[AudioRow], latents: int, count: int, method: str
    ) -> list[np.ndarray]:
        """Encodes at most `count` rows of at most `latents` vectors: `[C, chunk.length]` each."""
        waveforms = np.zeros((count, waveform_samples(self._config, latents)), np.float32)
        for waveform, row in zip(waveforms, rows, strict=False):
            np.concatenate(row.pieces, out=waveform[: sum(map(len, row.pieces))])
        splits = _column([row.chunk.kept for row in rows], count)
        lengths = _column([row.chunk.length for row in rows], count)
        program = functools.partial(self.encode_program, method=method)
        encoded = self._run(program, params, waveforms, splits, lengths)
        return [array[:, : row.chunk.length] for array, row in zip(encoded, rows, strict=False)]

    @standard_jax()
    def decode(
        self,
        params: Params,
        rows: Sequence[LatentRow],
        latents: int,
        count: int,
        steps: int,
        seed: int,
    ) -> list[np.ndarray]:
        """Decodes at most `count` rows: `[4096·chunk.kept + 1536]` each, not clipped."""
        padded = np.zeros((count, self._config.latent_channels, latents), np.float32)
        positions = np.zeros((count, latents), np.int32)
        for number, row in enumerate(rows):
            padded[number, :, : row.chunk.length] = row.latents
            positions[number, : row.chunk.length] = row.chunk.positions
        keys = jax.vmap(lambda channel: channel_key(seed, channel))(
            _column([row.channel for row in rows], count)
        )
        lengths = _column([row.chunk.length for row in rows], count)
        kept = _column([row.chunk.kept for row in rows], count)
        program = functools.partial(self.decode_program, steps=steps)
        decoded = self._run(program, params, padded, keys, positions, lengths, kept)
        step, reach = self._config.samples_per_latent, self._config.spectrogram.reach
        return [
            waveform[: row.chunk.kept * step + reach]
            for waveform, row in zip(decoded, rows, strict=False)
        ]

    def _run(self, program: Callable, params: Params, *rows: Any) -> np.ndarray:
        rows = self._put(rows, PartitionSpec('data'))
        with self._lock:  # or batches that wait for the device would each hold memory for it
            result = jax.block_until_ready(program(params, *rows))
        return np.asarray(result)

    def _put(self, tree: Any, spec: PartitionSpec) -> Any:
        return jax.device_put(tree, None if self._mesh is None else NamedSharding(self._mesh, spec))


def on_each_device(function: Callable, mesh: Mesh | None) -> Callable:
    """`function(params, *rows, **options)`, of which each device of a mesh computes its own rows.

    Args:
      function: of parameters, of arrays `[B, ...]` and of constants; its result is `[B, ...]`.
      mesh: of one axis, over which the rows are shared out; None for JAX's default device.
    """
    if mesh is None or mesh.size == 1:
        return function
    whole, split = PartitionSpec(), PartitionSpec(*mesh.axis_names)

    def share(params: Params, *rows: Any, **options: Any) -> Any:
        # Left to itself, XLA has each device gather all rows for their Fourier transforms.
        own = jax.shard_map(
            lambda params, rows: function(params, *rows, **options),
            mesh=mesh,
            in_specs=(whole, split),
            out_specs=split,
            check_vma=False,  # loops begin with zeros, the same on each device
        )
        return own(params, rows)

    return share


@standard_jax()
def _reopen(model: Music2Latent, names: Names | None) -> RowRunner:
    """The same in another process, where the devices of these names may be others' or missing."""
    return RowRunner(model, find_devices(names))


def in_batches(
    rows: Iterable[Row], size: int, count: Callable[[int], int]
) -> Iterator[tuple[int, list[Row]]]:
    """Rows as they come, in batches: (latent vectors that it is padded to, rows).

    The first row of a batch decides on its length, so that long rows first waste least.

    Args:
      rows: of at most `size` latent vectors.
      size: a chunk's.
      count: rows in a batch of a given length.
    """
    batch: list[Row] = []
    length = 0
    for row in rows:
        own_length = bucket(row.chunk.length, size)
        if batch and own_length > length:
            yield length, batch
            batch = []
        if not batch:
            length = own_length
        batch.append(row)
        if len(batch) == count(length):
            yield length, batch
            batch = []
    if batch:
        yield length, batch


def _column(values: Sequence[int], count: int) -> np.ndarray:
    """`[count]`, with zeros for the rows that a batch lacks."""
    return np.pad(np.asarray(values, np.int32), (0, count - len(values)))

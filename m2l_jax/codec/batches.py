"""Encodes and decodes batches of rows: pads them, runs them on devices, and cuts them again."""

import dataclasses
import functools
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from m2l_jax.audio.planes import as_stereo
from m2l_jax.codec.chunks import Chunk, Chunking, bucket
from m2l_jax.codec.placement import find_devices, inference_options
from m2l_jax.codec.rows import channel_key, decode_waveforms, encode_waveforms, waveform_samples
from m2l_jax.interface.devices import standard_jax
from m2l_jax.interface.settings import differences
from m2l_jax.model.autoencoder import Music2Latent, Params
from m2l_jax.model.config import ModelConfig
from m2l_jax.model.ops import for_inference

Row = TypeVar('Row', 'AudioRow', 'LatentRow')


@dataclasses.dataclass(frozen=True)
class AudioRow:
    """One channel of a chunk of audio, or both of stereo.

    `pieces` are `[samples]`, or `[2, samples]`, of the stretch, and of its completion if any: 4096
    per latent vector, and 1536 more each.
    """

    chunk: Chunk
    pieces: tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True)
class LatentRow:
    """A chunk of a channel's latents, `[64, chunk.length]`; its number decides its noise."""

    chunk: Chunk
    latents: np.ndarray
    channel: int


def latent_rows(latents: np.ndarray, chunks: Iterable[Chunk]) -> list[LatentRow]:
    """The rows of each chunk of `[channels, 64, frames]`, or of stereo `[1, 64, frames]`."""
    return [row for chunk in chunks for row in chunk_rows(latents[:, :, chunk.positions], chunk)]


def chunk_rows(latents: np.ndarray, chunk: Chunk) -> list[LatentRow]:
    """The rows of one chunk, from its own latents `[channels, 64, chunk.length]`."""
    return [LatentRow(chunk, own, channel) for channel, own in enumerate(latents)]


def join_channels(rows: Sequence[np.ndarray]) -> np.ndarray:
    """`[channels, samples]` of a chunk's decoded rows, `[samples]` each or one `[2, samples]`."""
    return np.concatenate([np.atleast_2d(row) for row in rows])


class RowCodec:
    """A `model` with its `config`, and `params` on devices, which encodes and decodes rows.

    Programs are compiled once per shape. Threads may share an instance: one computes at a time.
    """

    def _set_model(
        self, config: ModelConfig, params: Params, devices: Sequence[jax.Device] | None
    ) -> None:
        self.config, self._devices, self._lock = config, devices, threading.Lock()
        self._mesh = None if devices is None else Mesh(np.asarray(devices), ('data',))
        device = (devices or jax.devices())[0]
        self.model = Music2Latent(*for_inference(config, device))

        def compiled(function: Callable, option: str) -> Callable:
            shared = on_each_device(functools.partial(function, self.model), self._mesh)
            options = inference_options(device.platform)
            return jax.jit(shared, static_argnames=option, compiler_options=options)

        self._encode_program = compiled(encode_waveforms, 'method')
        self._decode_program = compiled(decode_waveforms, 'steps')
        self.params = self._put(params, PartitionSpec())

    @property
    def devices(self) -> int:
        """Devices that share the rows."""
        return 1 if self._devices is None else len(self._devices)

    def with_params(self, params: Params) -> Self:
        """The same model with other parameters; compiled programs are shared."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__, params=self._put(params, PartitionSpec()))
        other.__dict__.pop('model_id', None)
        return other

    def __repr__(self) -> str:
        config, kind = self.config, f'bottleneck {self.config.bottleneck!r}'
        if config.is_discrete:
            kind += f' of {config.levels} levels'
        return (
            f'{type(self).__name__}(model {self.model_id}, '
            f'{sum(leaf.size for leaf in jax.tree.leaves(self.params)):,} parameters, '
            f'{"mono" if config.audio_channels == 1 else "stereo"} of '
            f'{config.spectrogram.sample_rate} Hz, {config.latent_channels} numbers per '
            f'{config.samples_per_latent} samples, {kind}, computes in {config.dtype})'
        )

    def __copy__(self) -> Self:
        return self.with_params(self.params)

    def __deepcopy__(self, memo: dict) -> Self:
        return self.with_params(self.params)

    @standard_jax()
    def __getstate__(self) -> tuple[Any, ...]:
        names = self._devices and [(device.platform, device.id) for device in self._devices]
        return self.config, jax.device_get(self.params), names

    @standard_jax()
    def __setstate__(self, state: tuple[Any, ...]) -> None:
        config, params, names = state
        self._set_model(config, params, find_devices(names))

    @functools.cached_property
    @standard_jax()
    def model_id(self) -> str:
        """A fingerprint of sizes and parameters: it identifies the model that made some latents."""
        # Only what is not the default: a field added later leaves old fingerprints as they are.
        sizes = differences(ModelConfig(), self.config.defining)
        digest = hashlib.sha256('; '.join(sizes).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.params):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.ascontiguousarray(leaf, np.float32))
        return digest.hexdigest()[:16]

    def audio_rows(self, stretch: np.ndarray, chunk: Chunk, start: np.ndarray) -> list[AudioRow]:
        """The rows of a chunk, one per channel, or one of stereo; mono fills both its channels.

        `stretch` is the chunk's own audio, `[channels, 4096·chunk.kept + 1536]`; `start`, the
        audio's beginning, completes the last chunk.
        """
        pieces = [stretch]
        if chunk.wrapped:
            step, reach = self.config.samples_per_latent, self.config.spectrogram.reach
            pieces.append(start[:, : chunk.wrapped * step + reach])
        if self.config.audio_channels > 1:
            return [AudioRow(chunk, tuple(map(as_stereo, pieces)))]
        return [AudioRow(chunk, channel) for channel in zip(*pieces, strict=True)]

    def sequences(self, channels: int) -> int:
        """Latent sequences of audio of some channels: the rows of a chunk."""
        return channels if self.config.audio_channels == 1 else 1

    def encode_rows(
        self,
        rows: Iterable[AudioRow],
        chunking: Chunking,
        count: int | Callable[[int], int],
        extract_features: bool = False,
    ) -> Iterator[np.ndarray]:
        """Encodes rows, in order, in shared batches: `[C, chunk.length]` each.

        Args:
          rows: see `audio_rows`.
          chunking: gives the most latent vectors in a row.
          count: rows at once, or a function that gives it for the latent vectors in each.
          extract_features: returns the features before the bottleneck instead of latents.
        """
        method = 'features' if extract_features else 'encode'
        program = functools.partial(self._encode_program, method=method)
        for batch, latents, most in _in_batches(rows, chunking.size, count):
            shape = self.config.waveform_shape(waveform_samples(self.config, latents))
            waveforms = np.zeros((most, *shape), np.float32)
            for waveform, row in zip(waveforms, batch, strict=False):
                filled = sum(piece.shape[-1] for piece in row.pieces)
                np.concatenate(row.pieces, axis=-1, out=waveform[..., :filled])
            splits = _column([row.chunk.kept for row in batch], most)
            lengths = _column([row.chunk.length for row in batch], most)
            encoded = self._run(program, waveforms, splits, lengths)
            for row, array in zip(batch, encoded, strict=False):
                yield array[:, : row.chunk.length]

    def decode_rows(
        self,
        rows: Iterable[LatentRow],
        chunking: Chunking,
        count: int | Callable[[int], int],
        steps: int,
        seed: int,
    ) -> Iterator[np.ndarray]:
        """Decodes rows, in order, in shared batches: `[4096·chunk.kept + 1536]` each, not clipped.

        Of stereo, each is `[2, 4096·chunk.kept + 1536]`; see `join_channels`.

        Args:
          rows: see `latent_rows`.
          chunking, count: see `encode_rows`.
          steps, seed: evaluations of the model, and the seed of its noise.
        """
        program = functools.partial(self._decode_program, steps=steps)
        step, reach = self.config.samples_per_latent, self.config.spectrogram.reach
        for batch, latents, most in _in_batches(rows, chunking.size, count):
            padded = np.zeros((most, self.config.latent_channels, latents), np.float32)
            positions = np.zeros((most, latents), np.int32)
            for number, row in enumerate(batch):
                padded[number, :, : row.chunk.length] = row.latents
                positions[number, : row.chunk.length] = row.chunk.positions
            keys = _channel_keys(seed, _column([row.channel for row in batch], most))
            lengths = _column([row.chunk.length for row in batch], most)
            kept = _column([row.chunk.kept for row in batch], most)
            decoded = self._run(program, padded, keys, positions, lengths, kept)
            for row, waveform in zip(batch, decoded, strict=False):
                yield waveform[..., : row.chunk.kept * step + reach]

    @standard_jax()
    def _run(self, program: Callable, *rows: Any) -> np.ndarray:
        rows = self._put(rows, PartitionSpec('data'))
        with self._lock:  # otherwise each waiting batch would hold device memory
            result = jax.block_until_ready(program(self.params, *rows))
        return np.asarray(result)

    @standard_jax()
    def _put(self, tree: Any, spec: PartitionSpec) -> Any:
        return jax.device_put(tree, None if self._mesh is None else NamedSharding(self._mesh, spec))


def on_each_device(function: Callable, mesh: Mesh | None) -> Callable:
    """Shares the rows `[B, ...]` of `function(params, *rows, **options)` among devices.

    `mesh` has one axis, over which the rows are shared; None is JAX's default device.
    """
    if mesh is None or mesh.size == 1:
        return function
    whole, split = PartitionSpec(), PartitionSpec(*mesh.axis_names)

    def share(params: Params, *rows: Any, **options: Any) -> Any:
        # Without shard_map, XLA gathers all rows on each device for the Fourier transforms.
        own = jax.shard_map(
            lambda params, rows: function(params, *rows, **options),
            mesh=mesh,
            in_specs=(whole, split),
            out_specs=split,
            check_vma=False,  # loops begin with zeros, the same on each device
        )
        return own(params, rows)

    return share


def _in_batches(
    rows: Iterable[Row], size: int, count: int | Callable[[int], int]
) -> Iterator[tuple[list[Row], int, int]]:
    """Groups rows in order into (rows, latent vectors, count), the last two to pad the batch to.

    Rows have at most `size` latent vectors. The first row of a batch decides its length:
    descending lengths waste least. `count` is as in `RowCodec.encode_rows`.
    """
    batch: list[Row] = []
    length = most = 0
    for row in rows:
        own_length = bucket(row.chunk.length, size)
        if batch and own_length > length:
            yield batch, length, most
            batch = []
        if not batch:
            length, most = own_length, count(own_length) if callable(count) else count
        batch.append(row)
        if len(batch) == most:
            yield batch, length, most
            batch = []
    if batch:
        yield batch, length, most


@standard_jax()
def _channel_keys(seed: int, channels: np.ndarray) -> jax.Array:
    return jax.vmap(functools.partial(channel_key, seed))(channels)


def _column(values: Sequence[int], count: int) -> np.ndarray:
    """`[count]`, with zeros for missing rows."""
    return np.pad(np.asarray(values, np.int32), (0, count - len(values)))

"""The whole corpus as 16-bit samples in device memory, and crops cut from it by the devices.

All channels form one long signal, for stereo one of pairs, cut into blocks that the devices share.
Each block also holds the samples after it that a crop from its end needs. Spans list the starts of
all usable crops: none has to be redrawn, and a row's crop does not depend on the number of devices.
"""

import dataclasses
import logging
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from m2l_jax.audio.levels import FULL_SCALE, from_int16, to_int16
from m2l_jax.data.config import Collection
from m2l_jax.data.crops import report
from m2l_jax.data.sources import Source
from m2l_jax.interface.errors import InputError

_logger = logging.getLogger(__name__)

_BLOCK = 1 << 20  # samples: an int32 counts those of a block


@dataclasses.dataclass(frozen=True)
class ResidentCorpus:
    """A corpus on the devices.

    Attributes:
      blocks: `[blocks, block + crop - 1]`, int16, sharded along the first axis; of stereo the
        left channel of a block and then the right, `[blocks, 2·(block + crop - 1)]`.
      block: `[spans]`, int32: block of a span of usable crop starts.
      first: `[spans]`, int32: first start, within the block.
      count: `[spans]`, int32: number of starts.
      ends: `[spans]`, uint32: cumulative probability of the spans, times 2^32.
    """

    blocks: jax.Array
    block: jax.Array
    first: jax.Array
    count: jax.Array
    ends: jax.Array

    @staticmethod
    def specs(axis: str) -> 'ResidentCorpus':
        """Partition specs of the arrays on a mesh with the given axis."""
        return ResidentCorpus(PartitionSpec(axis), *[PartitionSpec()] * 4)


jax.tree_util.register_dataclass(ResidentCorpus)


def draw_spans(
    corpus: ResidentCorpus, key: jax.Array, rows: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Draws each row's span, and the crop's start within its block; `[B]`, int32, each.

    `key` is the step's; `rows`, `[B]`, are numbers in the global batch.
    """

    def draw_row(row):
        span_key, start_key = jax.random.split(jax.random.fold_in(key, row))
        bits = jax.random.bits(span_key, dtype=jnp.uint32)
        # The search leaves out the last end, 2^32, which does not fit into its type.
        span = jnp.searchsorted(corpus.ends[:-1], bits, side='right').astype(jnp.int32)
        offset = jax.random.randint(start_key, (), 0, corpus.count[span])
        return span, corpus.first[span] + offset

    return jax.vmap(draw_row)(rows)


def cut_crops(
    corpus: ResidentCorpus, key: jax.Array, batch_size: int, crop_samples: int, axis: str
) -> jax.Array:
    """Cuts this device's rows of a step's batch, `[B/devices, N]` or `[B/devices, 2, N]`, float32.

    Runs inside `shard_map`: each device cuts the crops that it holds, and a scattered sum brings
    each to the device that trains on it.
    """
    span, start = draw_spans(corpus, key, jnp.arange(batch_size))
    held = corpus.blocks.shape[0]
    block = corpus.block[span] - jax.lax.axis_index(axis) * held
    width = _block_width(crop_samples)
    channels = corpus.blocks.shape[1] // width

    def cut(block, start):
        is_here = (block >= 0) & (block < held)
        place = (jnp.clip(block, 0, held - 1), start)
        crop = jax.lax.dynamic_slice(corpus.blocks, place, (1, crop_samples))[0]
        return jnp.where(is_here, crop.astype(jnp.int32), 0)

    # Zeros, where another device has the crop.
    crops = [jax.vmap(cut)(block, start + channel * width) for channel in range(channels)]  # [B, N]
    crops = crops[0] if channels == 1 else jnp.stack(crops, axis=1)  # [B, 2, N]
    return from_int16(jax.lax.psum_scatter(crops, axis, scatter_dimension=0, tiled=True))


class ResidentLoader:
    """Reads collections, finds the usable crops, and copies all to the devices.

    Every process reads the whole corpus, and holds it until the devices do.

    Attributes:
      reported: item -> why it, or some of it, is not used.
    """

    def __init__(
        self,
        mesh: Mesh,
        axis: str,
        crop_samples: int,
        min_rms: float,
        other_bytes: int = 0,
        audio_channels: int = 1,
    ):
        """Takes a mesh with `axis`; each device needs `other_bytes` for other data.

        `audio_channels` are those of a crop, and of the sources' signals.
        """
        self.reported: dict[str, str] = {}
        self._mesh, self._axis = mesh, axis
        self._crop_samples = crop_samples
        self._width = _block_width(crop_samples)
        self._audio_channels = audio_channels
        self._least_energy = (min_rms * FULL_SCALE) ** 2 * crop_samples * audio_channels
        self._min_rms = min_rms
        self._other_bytes = other_bytes
        self._signals: list[np.ndarray] = []
        self._items: list[str] = []
        self._samples = 0

    def load(self, mix: Sequence[tuple[Collection, Source]]) -> ResidentCorpus:
        """Reads the collections and copies them to the devices.

        Raises:
          InputError: if a collection has no usable crop, or a device not enough memory.
        """
        sizes = [source.samples for _, source in mix]
        if None not in sizes:  # before hours of audio are read
            self._check_memory(sum(sizes))
        spans = np.concatenate([self._read_collection(*entry) for entry in mix])
        self._begins = np.cumsum([0, *(signal.shape[1] for signal in self._signals)])
        size = self._check_memory(self._samples) / 2**30
        message = 'corpus of %.1f million samples: %.3f GiB on each of %d devices'
        _logger.info(message, self._samples / 1e6, size, self._mesh.size)
        corpus = self._place(_split_at_blocks(spans))
        self._signals.clear()  # the devices have them now
        return corpus

    def items_of(self, corpus: ResidentCorpus, key: jax.Array, batch_size: int) -> list[str]:
        """Returns the item of each row of the batch of a step's key."""
        table = jax.tree.map(
            lambda array: jnp.asarray(np.asarray(array)), dataclasses.replace(corpus, blocks=None)
        )
        span, start = draw_spans(table, key, jnp.arange(batch_size))
        positions = np.asarray(table.block[span], np.int64) * _BLOCK + np.asarray(start)
        numbers = np.searchsorted(self._begins, positions, side='right') - 1
        return [self._items[number] for number in numbers]

    def _read_collection(self, collection: Collection, source: Source) -> np.ndarray:
        """Adds the signals, and returns `[spans, 3]`: first start, count of starts, probability."""
        spans = [span for item, audio in source.items() for span in self._read_item(item, audio)]
        if not spans:
            raise InputError(
                f'{collection.path} has no crop that can be used (all silent below RMS '
                f'{self._min_rms}, damaged or not finite): check the path or lower data.min_rms'
            )
        spans = np.array(spans, np.float64)
        spans[:, 2] = spans[:, 2] / spans[:, 2].sum() * collection.weight
        return spans

    def _read_item(self, item: str, signals: np.ndarray | str) -> list[tuple[int, int, float]]:
        """Adds an item's signals; returns first, count and weight of spans of usable starts."""
        if isinstance(signals, str):
            report(self.reported, item, signals)
            return []
        if not np.all(np.isfinite(signals)):
            reason = f'{item} holds NaN or infinite samples: replace or remove it'
            report(self.reported, item, reason)
        spans = []
        for signal in map(np.atleast_2d, signals):  # [audio channels, N]
            for first, count in self._usable_starts(signal):
                spans.append((self._samples + first, count, count / len(signals)))
            self._check_memory(self._samples + signal.shape[1])
            self._signals.append(to_int16(np.nan_to_num(signal)))
            self._items.append(item)
            self._samples += signal.shape[1]
        if not spans:
            report(self.reported, item, f'{item} has no crop above RMS {self._min_rms}: remove it')
        return spans

    def _usable_starts(self, signal: np.ndarray) -> Iterator[tuple[int, int]]:
        """Yields spans (first, count) of the starts whose crops are finite and loud enough."""
        crop = self._crop_samples
        for begin in range(0, signal.shape[1] - crop + 1, _BLOCK):
            part = signal[:, begin : begin + self._width]
            samples = to_int16(np.nan_to_num(part)).astype(np.int64)
            energy = np.cumsum(np.pad(np.sum(samples**2, axis=0), (1, 0)))  # integers: exact
            broken = np.cumsum(np.pad(np.any(~np.isfinite(part), axis=0), (1, 0)))
            is_loud = energy[crop:] - energy[:-crop] >= self._least_energy
            usable = is_loud & (broken[crop:] == broken[:-crop])
            edges = np.flatnonzero(np.diff(usable, prepend=False, append=False))
            for first, end in edges.reshape(-1, 2):
                yield begin + int(first), int(end - first)

    def _place(self, spans: np.ndarray) -> ResidentCorpus:
        """Copies the signals, and the spans, each within one block, to the devices."""
        first, count, probability = spans.T.copy()
        ends = np.minimum(np.cumsum(probability) / np.sum(probability) * 2.0**32, 2.0**32 - 1)
        rows = self._blocks_per_device(self._samples) * self._mesh.size
        blocks = jax.make_array_from_callback(
            (rows, self._audio_channels * self._width),
            NamedSharding(self._mesh, PartitionSpec(self._axis)),
            lambda index: np.stack([self._read(row) for row in range(*index[0].indices(rows))]),
        )
        starts = np.stack([first // _BLOCK, first % _BLOCK, count]).astype(np.int32)
        table = (*starts, ends.astype(np.uint32))
        return ResidentCorpus(
            blocks, *jax.device_put(table, NamedSharding(self._mesh, PartitionSpec()))
        )

    def _read(self, row: int) -> np.ndarray:
        """Reads a block of the long signal, as `ResidentCorpus` has it; zeros follow its end."""
        begin, filled = row * _BLOCK, 0
        result = np.zeros((self._audio_channels, self._width), np.int16)
        for number in range(np.searchsorted(self._begins, begin, 'right') - 1, len(self._signals)):
            offset = begin + filled - int(self._begins[number])
            part = self._signals[number][:, offset : offset + self._width - filled]
            result[:, filled : filled + part.shape[1]] = part
            filled += part.shape[1]
            if filled == self._width:
                break
        return result.reshape(-1)

    def _blocks_per_device(self, samples: int) -> int:
        return -(-samples // (_BLOCK * self._mesh.size))

    def _check_memory(self, samples: int) -> int:
        """Returns the bytes of a corpus on each device; raises InputError if there are fewer."""
        values = self._blocks_per_device(samples) * self._width * self._audio_channels
        wanted, free = values * np.dtype(np.int16).itemsize, _free_memory(self._mesh)
        if wanted + self._other_bytes > free:
            raise InputError(
                f'the resident corpus takes {wanted / 2**30:.3g} GiB on each of {self._mesh.size} '
                f'devices, which have {free / 2**30:.3g} GiB free and are to hold '
                f'{self._other_bytes / 2**30:.3g} GiB of state too: use more devices, a smaller '
                'corpus, or --config.data.resident=False'
            )
        return wanted


def _block_width(crop_samples: int) -> int:
    """Samples of a block and of those after it that a crop from its end needs."""
    return _BLOCK + crop_samples - 1


def _split_at_blocks(spans: np.ndarray) -> np.ndarray:
    """Cuts spans, `[spans, 3]`, so that each lies in one block."""
    parts = []
    for first, count, probability in spans:
        inner = np.arange(first // _BLOCK + 1, (first + count - 1) // _BLOCK + 1) * _BLOCK
        edges = np.concatenate([[first], inner, [first + count]])
        counts = np.diff(edges)
        parts.append(np.stack([edges[:-1], counts, probability * counts / count], axis=1))
    return np.concatenate(parts)


def _free_memory(mesh: Mesh) -> int:
    """Returns the bytes free on each of this process's devices."""
    statistics = mesh.local_devices[0].memory_stats()
    if statistics and 'bytes_limit' in statistics:
        return statistics['bytes_limit'] - statistics.get('bytes_in_use', 0)
    # CPU devices share the machine's memory.
    return psutil.virtual_memory().available // len(mesh.local_devices)

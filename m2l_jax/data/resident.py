"""The whole corpus as 16-bit samples in device memory, and crops cut from it by the devices.

All items' channels stand end to end in one long signal, cut into blocks that are shared out among
the devices. Each block is completed by the samples that follow it, so that a crop that starts in it
can be cut from it. The starts of usable crops, found once and exactly, are listed as spans: no crop
has to be rejected afterwards, and a row's crop does not depend on the number of devices.
"""

import dataclasses
import logging
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from m2l_jax.audio.pcm import FULL_SCALE, from_int16, to_int16
from m2l_jax.data.config import Collection
from m2l_jax.data.sources import Source
from m2l_jax.interface.errors import InputError

_logger = logging.getLogger(__name__)

_BLOCK = 1 << 20  # samples, less than half a minute: an int32 counts them, whatever the corpus
_TABLE = ('block', 'first', 'count', 'ends')


@dataclasses.dataclass(frozen=True)
class ResidentCorpus:
    """A corpus on the devices.

    Attributes:
      blocks: `[blocks, block + crop - 1]`, int16, cut along the first axis over the mesh.
      block: `[spans]`, int32: the block in which a span of usable crop starts lies.
      first: `[spans]`, int32: the first of the starts, within the block.
      count: `[spans]`, int32: how many there are.
      ends: `[spans]`, uint32: the spans' cumulative probability, times 2^32.
    """

    blocks: jax.Array
    block: jax.Array
    first: jax.Array
    count: jax.Array
    ends: jax.Array

    @staticmethod
    def specs(axis: str) -> 'ResidentCorpus':
        """Where each array lives on a mesh with the given axis."""
        replicated = PartitionSpec()
        return ResidentCorpus(PartitionSpec(axis), replicated, replicated, replicated, replicated)


jax.tree_util.register_dataclass(ResidentCorpus)


def draw_spans(
    corpus: ResidentCorpus, key: jax.Array, rows: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The span and the start within its block of each row's crop, `[B]`, int32.

    Args:
      corpus: the corpus.
      key: of the step.
      rows: `[B]`, numbers of the rows in the global batch.
    """

    def draw_row(row):
        span_key, start_key = jax.random.split(jax.random.fold_in(key, row))
        bits = jax.random.bits(span_key, dtype=jnp.uint32)
        # The last end, 2^32, does not fit into its type: it is left out of the search.
        span = jnp.searchsorted(corpus.ends[:-1], bits, side='right').astype(jnp.int32)
        offset = jax.random.randint(start_key, (), 0, corpus.count[span])
        return span, corpus.first[span] + offset

    return jax.vmap(draw_row)(rows)


def cut_crops(
    corpus: ResidentCorpus, key: jax.Array, batch_size: int, crop_samples: int, axis: str
) -> jax.Array:
    """This device's rows of a step's global batch, `[B/devices, N]`, float32; inside `shard_map`.

    Each device cuts, for the whole batch, the crops that it holds; their sum, scattered by rows,
    brings each crop to the device that trains on it.
    """
    span, start = draw_spans(corpus, key, jnp.arange(batch_size))
    held = corpus.blocks.shape[0]
    block = corpus.block[span] - jax.lax.axis_index(axis) * held

    def cut(block, start):
        is_here = (block >= 0) & (block < held)
        place = (jnp.clip(block, 0, held - 1), start)
        crop = jax.lax.dynamic_slice(corpus.blocks, place, (1, crop_samples))[0]
        return jnp.where(is_here, crop.astype(jnp.int32), 0)

    crops = jax.vmap(cut)(block, start)  # [B, N], zeros where another device has the crop
    mine = jax.lax.psum_scatter(crops, axis, scatter_dimension=0, tiled=True)  # [B/devices, N]
    return from_int16(mine)


class ResidentLoader:
    """Reads collections into host memory, finds the usable crops, and puts all on the devices.

    Every process reads the whole corpus, and holds it as 16-bit samples until the devices do.
    """

    def __init__(
        self, mesh: Mesh, axis: str, crop_samples: int, min_rms: float, other_bytes: int = 0
    ):
        """For the devices of a mesh with the given axis, which are to hold `other_bytes` each too.

        Those are of what is not there yet, such as the training's state.
        """
        self.reported: dict[str, str] = {}  # item -> why it, or some of it, is not used
        self._mesh, self._axis = mesh, axis
        self._crop_samples = crop_samples
        self._least_energy = (min_rms * FULL_SCALE) ** 2 * crop_samples
        self._min_rms = min_rms
        self._other_bytes = other_bytes
        self._signals: list[np.ndarray] = []
        self._items: list[str] = []
        self._samples = 0

    def load(self, mix: Sequence[tuple[Collection, Source]]) -> ResidentCorpus:
        """Reads the collections and copies them to the devices.

        Raises:
          InputError: if a collection has no crop that can be used, or a device not enough memory.
        """
        sizes = [source.samples for _, source in mix]
        if None not in sizes:  # told before hours of audio are read
            self._check_memory(sum(sizes))
        spans = np.concatenate([self._read_collection(*entry) for entry in mix], axis=1)
        self._begins = np.cumsum([0, *map(len, self._signals)])
        self._check_memory(self._samples)
        _logger.info(
            'corpus of %.1f million samples: %.3f GiB on each of %d devices',
            self._samples / 1e6,
            self._bytes_per_device(self._samples) / 2**30,
            self._mesh.size,
        )
        corpus = self._place(*_split_at_blocks(*spans))
        self._signals.clear()  # the devices have them now
        return corpus

    def items_of(self, corpus: ResidentCorpus, key: jax.Array, batch_size: int) -> list[str]:
        """The items that a step's crops are cut from, a row each."""
        table = {name: jnp.asarray(np.asarray(getattr(corpus, name))) for name in _TABLE}
        span, start = draw_spans(ResidentCorpus(None, **table), key, jnp.arange(batch_size))
        blocks = np.asarray(table['block'][span], np.int64)
        positions = blocks * _BLOCK + np.asarray(start)
        numbers = np.searchsorted(self._begins, positions, side='right') - 1
        return [self._items[number] for number in numbers]

    def _read_collection(self, collection: Collection, source: Source) -> np.ndarray:
        """Adds the signals, and returns `[3, spans]`: first start, count of starts, probability."""
        spans = [span for item, audio in source.items() for span in self._read_item(item, audio)]
        if not spans:
            raise InputError(
                f'{collection.path} has no crop that can be used (all silent below RMS '
                f'{self._min_rms}, damaged or not finite): check the path or lower data.min_rms'
            )
        first, count, weight = np.array(spans, np.float64).T
        return np.stack([first, count, weight / weight.sum() * collection.weight])

    def _read_item(self, item: str, waveform: np.ndarray | str) -> list[tuple[int, int, float]]:
        """Adds an item's channels; the first, count and weight of each span of usable starts."""
        if isinstance(waveform, str):
            self._report(item, waveform)
            return []
        if not np.all(np.isfinite(waveform)):
            self._report(item, f'{item} holds NaN or infinite samples: replace or remove it')
        spans = []
        for signal in waveform:
            for first, count in self._usable_starts(signal):
                spans.append((self._samples + first, count, count / len(waveform)))
            self._check_memory(self._samples + len(signal))
            self._signals.append(to_int16(np.nan_to_num(signal)))
            self._items.append(item)
            self._samples += len(signal)
        if not spans:
            self._report(item, f'{item} has no crop above RMS {self._min_rms}: remove it')
        return spans

    def _usable_starts(self, signal: np.ndarray) -> Iterator[tuple[int, int]]:
        """Spans (first, count) of the starts whose crops are finite and loud enough."""
        crop = self._crop_samples
        for begin in range(0, len(signal) - crop + 1, _BLOCK):
            part = signal[begin : begin + _BLOCK + crop - 1]
            # Sums of whole numbers: nothing is rounded, however long the audio.
            energy = np.cumsum(
                np.concatenate([[0], to_int16(np.nan_to_num(part)).astype(np.int64) ** 2])
            )
            broken = np.cumsum(np.concatenate([[0], ~np.isfinite(part)]))
            is_loud = energy[crop:] - energy[:-crop] >= self._least_energy
            usable = is_loud & (broken[crop:] == broken[:-crop])
            edges = np.flatnonzero(np.diff(np.concatenate([[False], usable, [False]])))
            for first, end in edges.reshape(-1, 2):
                yield begin + int(first), int(end - first)

    def _place(
        self, first: np.ndarray, count: np.ndarray, probability: np.ndarray
    ) -> ResidentCorpus:
        specs = ResidentCorpus.specs(self._axis)
        ends = np.minimum(np.cumsum(probability) / np.sum(probability) * 2.0**32, 2.0**32 - 1)
        table = {
            'block': (first // _BLOCK).astype(np.int32),
            'first': (first % _BLOCK).astype(np.int32),
            'count': count.astype(np.int32),
            'ends': ends.astype(np.uint32),
        }
        rows = self._blocks_per_device(self._samples) * self._mesh.size
        blocks = jax.make_array_from_callback(
            (rows, self._width),
            NamedSharding(self._mesh, specs.blocks),
            lambda index: self._read_blocks(range(*index[0].indices(rows))),
        )
        placed = {
            name: jax.device_put(table[name], NamedSharding(self._mesh, getattr(specs, name)))
            for name in _TABLE
        }
        return ResidentCorpus(blocks, **placed)

    def _read_blocks(self, blocks: range) -> np.ndarray:
        return np.stack([self._read(block * _BLOCK) for block in blocks])

    def _read(self, begin: int) -> np.ndarray:
        """A block of the long signal, with zeros after the signal's end."""
        result = np.zeros(self._width, np.int16)
        filled = 0
        for number in range(np.searchsorted(self._begins, begin, 'right') - 1, len(self._signals)):
            offset = begin + filled - int(self._begins[number])
            part = self._signals[number][offset : offset + self._width - filled]
            result[filled : filled + len(part)] = part
            filled += len(part)
            if filled == self._width:
                break
        return result

    @property
    def _width(self) -> int:
        """Samples of a block with what completes it."""
        return _BLOCK + self._crop_samples - 1

    def _blocks_per_device(self, samples: int) -> int:
        return -(-samples // (_BLOCK * self._mesh.size))

    def _bytes_per_device(self, samples: int) -> int:
        return self._blocks_per_device(samples) * self._width * np.dtype(np.int16).itemsize

    def _check_memory(self, samples: int) -> None:
        wanted, free = self._bytes_per_device(samples), _free_memory(self._mesh)
        if wanted + self._other_bytes > free:
            raise InputError(
                f'the resident corpus takes {wanted / 2**30:.3g} GiB on each of {self._mesh.size} '
                f'devices, which have {free / 2**30:.3g} GiB free and are to hold '
                f'{self._other_bytes / 2**30:.3g} GiB of state too: use more devices, a smaller '
                'corpus, or --config.data.resident=False'
            )

    def _report(self, item: str, reason: str) -> None:
        if item not in self.reported:
            self.reported[item] = reason
            _logger.warning('leaving out what cannot be used: %s', reason)


def _split_at_blocks(
    first: np.ndarray, count: np.ndarray, probability: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same spans, cut so that each lies in one block."""
    firsts, counts, probabilities = [], [], []
    for begin, length, share in zip(
        first.astype(np.int64), count.astype(np.int64), probability, strict=True
    ):
        inner = np.arange(begin // _BLOCK + 1, (begin + length - 1) // _BLOCK + 1) * _BLOCK
        edges = np.concatenate([[begin], inner, [begin + length]])
        firsts.append(edges[:-1])
        counts.append(np.diff(edges))
        probabilities.append(share * np.diff(edges) / length)
    return np.concatenate(firsts), np.concatenate(counts), np.concatenate(probabilities)


def _free_memory(mesh: Mesh) -> int:
    """Bytes free on each of this process's devices."""
    statistics = mesh.local_devices[0].memory_stats()
    if statistics and 'bytes_limit' in statistics:
        return statistics['bytes_limit'] - statistics.get('bytes_in_use', 0)
    # A CPU, whose devices share the machine's memory.
    return psutil.virtual_memory().available // len(mesh.local_devices)

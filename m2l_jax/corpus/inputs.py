"""The inputs of a corpus job: lists them, reads them, and reads audio ahead of the work.

Listing reads no header: there may be millions of files. Besides what `find_files` takes, an input
may be a TFDS dataset: its folder, `FOLDER[SPLIT]`, or for audio `tfds:NAME[SPLIT]`.
"""

import collections
import contextlib
import dataclasses
import logging
import os
import queue
import threading
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from m2l_jax.audio import files
from m2l_jax.audio.levels import Levels
from m2l_jax.audio.suffixes import AUDIO_SUFFIXES, FFMPEG, UNREAD_SUFFIXES, LeftOut, left_out
from m2l_jax.corpus import formats, store
from m2l_jax.corpus.formats import is_shard
from m2l_jax.corpus.ledger import MANIFEST, is_claimed
from m2l_jax.corpus.plan import Item
from m2l_jax.corpus.store import mirrored_name
from m2l_jax.data.tfds import AudioRecords, is_dataset, split_of
from m2l_jax.interface import listing
from m2l_jax.interface.errors import InputError

_logger = logging.getLogger(__name__)

T = TypeVar('T')

_TENSOR_SUFFIXES = ('.pt', '.pth', '.safetensors', '.h5')  # perhaps latents, but not read
_SAVE = 'with np.save(X, tensor.numpy())'
_WAIT_SECONDS = 0.2  # between checks for the end of reading ahead


def is_single_file(inputs: str) -> bool:
    """True for a single file that is not a list."""
    return os.path.isfile(inputs) and not inputs.lower().endswith(listing.LIST_SUFFIX)


def find_audio(
    inputs: str, output: str | os.PathLike[str], datasets: bool = True
) -> tuple[tuple[Item, ...], LeftOut]:
    """Lists the audio to encode: files, and each record of datasets.

    Args:
      inputs: folder, pattern, file, list or dataset; several with commas between.
      output: the job's output folder; files below it are left out.
      datasets: True to read datasets too.

    Returns:
      Every input once, sorted by `source`; and the files of unread formats in folders and patterns.
      Files that a list names may be missing.

    Raises:
      InputError: if an input is missing, or there is no audio that can be read.
    """
    reader = _audio_records if datasets else None
    return _list_items(
        inputs, output, AUDIO_SUFFIXES, 'audio file', reader, UNREAD_SUFFIXES, FFMPEG
    )


def latent_items(inputs: str, output: str | os.PathLike[str]) -> tuple[Item, ...]:
    """Lists the latents to decode: files of `corpus.store`, and each shard of datasets of latents.

    Args, items and errors are those of `find_audio`; the folder of an incomplete job is an error
    too.
    """
    for part in listing.split_inputs(inputs):
        if is_claimed(part) and not os.path.exists(os.path.join(part, MANIFEST)):
            raise InputError(f'{part} is not complete: run the encoding to its end first')
    items, not_read = _list_items(
        inputs, output, store.SUFFIXES, 'file of latents', _latent_shards, _TENSOR_SUFFIXES, _SAVE
    )
    if not_read.files:
        _logger.warning('%s', not_read.describe(_SAVE))
    return items


def check_mirrored(items: Iterable[Item], suffix: str, instead: str = '') -> None:
    """Raises an InputError if two inputs, other than shards, would have the same output file.

    Args:
      items: the inputs.
      suffix: of the output files.
      instead: an alternative to renaming, for the message.
    """
    taken: dict[str, Item] = {}
    pairs = []
    for item in items:
        if is_shard(item.path):
            continue
        other = taken.setdefault(mirrored_name(item.source, suffix), item)
        if other is not item:
            pairs.append((other, item))
    if pairs:
        (one, other), more = pairs[0], len(pairs) - 1
        raise InputError(
            f'{one.path} and {other.path} would both become {mirrored_name(one.source, suffix)}'
            f'{f", and {more} more pairs" if more else ""}: rename one of each{instead}'
        )


@dataclasses.dataclass(frozen=True)
class AudioSource:
    """An audio file, or a record of a dataset, which is read twice, whole: for its length first."""

    item: Item
    records: AudioRecords | None = None

    @property
    def name(self) -> str:
        """Name to store it by."""
        return self.item.source

    def describe(self, sample_rate: int) -> tuple[int, int, str]:
        """Returns samples at a given rate, channels, and a warning or ''; raises InputError."""
        if self.records is None:
            info = files.read_info(self.item.path)
            return info.samples_at(sample_rate), info.channels, info.warning
        channels, samples = self.records.read(self.item.record, sample_rate).shape
        return samples, channels, ''

    def blocks(self, sample_rate: int, block_samples: int, levels: Levels) -> Iterator[np.ndarray]:
        """Yields consecutive `[channels, block_samples]` of a file, or all of a record.

        The last block of a file may be shorter. Decoded audio is added to `levels`.

        Raises:
          InputError: if it cannot be read.
        """
        if self.records is None:
            yield from files.read_blocks(self.item.path, sample_rate, block_samples, levels=levels)
            return
        waveform = self.records.read(self.item.record, sample_rate)
        levels.add(waveform.T)
        yield waveform


def audio_sources(items: Sequence[Item]) -> list[AudioSource]:
    """Opens the audio of items; raises an InputError if a dataset cannot be opened."""
    paths = {item.path for item in items if item.record is not None}
    datasets = {path: AudioRecords(path) for path in paths}
    return [
        AudioSource(item, None if item.record is None else datasets[item.path]) for item in items
    ]


def read_latent_item(item: Item) -> Iterator[tuple[str, store.StoredLatents]]:
    """Yields the name and latents of a file, see `store.read_any`, or of each in a dataset's shard.

    Raises:
      InputError: if it cannot be read.
    """
    if not is_shard(item.path):
        yield item.source, store.read_any(item.path)
        return
    yield from formats.read_shard(item.path, formats.read_format(os.path.dirname(item.path)))


def read_ahead(
    sources: Sequence[Callable[[], Iterator[T]]], threads: int, depth: int
) -> Generator[Iterator[T], None, None]:
    """Yields the iterators that `sources` return, in order, while threads read them ahead.

    Args:
      sources: called in a thread, which advances the iterator too.
      threads: sources that are read at once, the one that is wanted among them.
      depth: items of a source that are read before they are wanted.

    Yields:
      An iterator for each source, to be exhausted before the next is taken. It raises the errors of
      its source.
    """
    closed = threading.Event()
    with ThreadPoolExecutor(threads, 'read_ahead') as pool:
        feeds: collections.deque[queue.Queue] = collections.deque()
        try:
            for number in range(len(sources)):
                for source in sources[number + len(feeds) : number + threads]:
                    feeds.append(queue.Queue(depth))
                    pool.submit(_fill, feeds[-1], source, closed)
                yield _items_of(feeds.popleft())
        finally:
            closed.set()


def _fill(feed: queue.Queue, source: Callable[[], Iterator[T]], closed: threading.Event) -> None:
    """Puts (True, item) for each item of a source, then (False, its error or None)."""

    def put(*entry: Any) -> bool:
        while not closed.is_set():
            with contextlib.suppress(queue.Full):
                feed.put(entry, timeout=_WAIT_SECONDS)
                return True
        return False

    error = None
    try:
        with contextlib.closing(source()) as items:
            for item in items:
                if not put(True, item):
                    return
    except BaseException as raised:
        error = raised
    put(False, error)


def _items_of(feed: queue.Queue) -> Iterator[Any]:
    while (entry := feed.get())[0]:
        yield entry[1]
    if entry[1] is not None:
        raise entry[1]


def _list_items(
    inputs: str,
    output: str | os.PathLike[str],
    suffixes: Collection[str],
    kind: str,
    read_dataset: Callable[[str, str], Iterator[Item]] | None,
    unread_suffixes: Collection[str],
    remedy: str,
) -> tuple[tuple[Item, ...], LeftOut]:
    parts = listing.split_inputs(inputs)
    datasets = [part for part in parts if read_dataset is not None and is_dataset(part)]
    others = [part for part in parts if part not in datasets]
    _refuse_output([*others, *(split_of(part)[0] for part in datasets)], output)
    names = [_dataset_name(part) for part in datasets]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f'several datasets are called {name!r}: use another --output for each')
    root, paths, unread = listing.find_files(others, suffixes, kind, unread_suffixes)
    above = len(os.path.join(root, ''))
    paths = _outside(output, paths)
    items = [
        Item(listing.readable_name(path[above:]), path, size)
        for path, size in zip(paths, listing.file_sizes(paths), strict=True)
        if size is not None
    ]
    not_read = left_out(listing.readable_name(path[above:]) for path in _outside(output, unread))
    for part in datasets:
        place = part if part.startswith('tfds:') else os.path.abspath(part)
        items += read_dataset(place, _dataset_name(part) if len(parts) > 1 else '')
    if not items:
        unread_too = f' ({not_read.describe(remedy)})' if not_read.files else ''
        raise InputError(
            f'no {kind} in {inputs}{unread_too}: '
            f'they end in {", ".join(sorted(suffixes))}; check --input'
        )
    return tuple(sorted(items, key=lambda item: item.source)), not_read


def _refuse_output(parts: Iterable[str], output: str | os.PathLike[str]) -> None:
    folder = os.path.realpath(output)
    for part in parts:
        if os.path.commonpath([folder, os.path.realpath(part)]) == folder:
            raise InputError(f'{part} lies in the output folder {output}: choose another --output')


def _outside(output: str | os.PathLike[str], paths: Iterable[str]) -> list[str]:
    below = os.path.join(os.path.abspath(output), '')
    return [path for path in paths if not path.startswith(below)]


def _dataset_name(path: str) -> str:
    """Returns the prefix of a dataset's records, used if there are other inputs."""
    return os.path.basename(os.path.normpath(split_of(path)[0])).removeprefix('tfds:')


def _audio_records(path: str, prefix: str) -> Iterator[Item]:
    records = AudioRecords(path)
    size = records.bytes // len(records)
    for number in range(len(records)):
        source = os.path.join(prefix, records.split, f'{number:08d}')
        yield Item(source, records.path, size, number)


def _latent_shards(path: str, prefix: str) -> Iterator[Item]:
    shards = list(formats.shard_lengths(*split_of(path)))
    for shard, size in zip(shards, listing.file_sizes(shards), strict=True):
        yield Item(os.path.join(prefix, os.path.basename(shard)), shard, size or 0)

"""Reading streams of audio ahead of the work, as the rows of their chunks."""

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np

from m2l_jax.codec.batches import AudioRow
from m2l_jax.codec.chunks import Chunk
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.interface.errors import InputError

T = TypeVar('T')

_WAIT_SECONDS = 0.2  # between checks whether a source is still wanted


def mixed_channels(channels: int, mode: str) -> int:
    """Number of rows that `mix` makes of `channels`.

    Raises:
      InputError: for mid/side of more than two.
    """
    if mode == 'mid_side' and channels > 2:
        raise InputError(f'{channels} channels have no mid and side: take --channels=each or mono')
    return 1 if mode == 'mono' else channels


def mix(waveform: np.ndarray, mode: str) -> np.ndarray:
    """Mixes `[channels, samples]` for encoding: 'each', 'mono' (their mean), or 'mid_side'.

    Mid and side are half the sum and half the difference of left and right; of mono, mid is itself
    and there is no side.
    """
    with np.errstate(over='ignore'):  # an overflow shows in the latents, which are not finite
        if mode == 'mono':
            return waveform.mean(axis=0, keepdims=True)
        if mode == 'mid_side' and len(waveform) == 2:
            left, right = waveform
            return np.stack([(left + right) / 2, (left - right) / 2])
    return waveform


def unmix(waveform: np.ndarray, mode: str) -> np.ndarray:
    """Inverts `mix`, except for 'mono', where nothing but the mean is known."""
    if mode == 'mid_side' and len(waveform) == 2:
        middle, side = waveform
        return np.stack([middle + side, middle - side])
    return waveform


def chunk_rows(
    codec: EncoderDecoder, blocks: Iterator[np.ndarray], chunks: Sequence[Chunk]
) -> Iterator[list[AudioRow]]:
    """Cuts consecutive blocks `[channels, N]` into the rows of each chunk, in memory for two.

    Silence completes what is shorter than the last chunk; what is longer is read and left out.

    Args:
      codec: that will encode the rows.
      blocks: of audio.
      chunks: of the whole, see `Chunking.cut`.
    """
    step, reach = codec.samples_per_latent, codec.reach
    window, offset, start = next(blocks), 0, None
    for chunk in chunks:
        begin, end = chunk.begin * step, chunk.end * step + reach
        parts, offset = [window[:, begin - offset :]], begin
        missing = end - begin - parts[0].shape[1]
        while missing > 0:
            block = next(blocks, None)
            parts.append(np.zeros((len(window), missing), np.float32) if block is None else block)
            missing -= parts[-1].shape[1]
        window = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
        stretch = window[:, : end - begin]
        start = stretch if start is None else start
        if chunk is chunks[-1]:
            for _ in blocks:  # only the end shows whether the file is whole
                pass
        yield codec.audio_rows(stretch, chunk, start)


def read_ahead(
    sources: Sequence[Callable[[], Iterator[T]]], threads: int, depth: int
) -> Generator[Iterator[T], None, None]:
    """Yields the iterators that `sources` return, in order, each read ahead by one thread.

    Args:
      sources: called in a thread; their iterators are advanced there too.
      threads: that read, a source each; no more sources than that are read before they are wanted.
      depth: items of a source that are read before they are wanted.

    Yields:
      An iterator for each source, to be exhausted before the next is taken. It raises what the
      source has raised.
    """
    closed = threading.Event()
    feeds = [_Feed(source, depth, closed) for source in sources]
    waiting, lock = iter(feeds), threading.Lock()
    room = threading.Semaphore(threads)  # a source of few items is read long before it is wanted

    def work() -> None:
        while True:
            room.acquire()
            with lock:
                feed = next(waiting, None)
            if feed is None or closed.is_set():
                return
            feed.fill()

    workers = [threading.Thread(target=work, daemon=True) for _ in range(min(threads, len(feeds)))]
    for worker in workers:
        worker.start()
    try:
        for feed in feeds:
            yield feed.items()
            room.release()
    finally:
        closed.set()
        room.release(threads)  # so that all that wait see that it is over
        for worker in workers:
            worker.join()


class _Feed(Generic[T]):
    """Passes items from the thread that reads a source to the one that consumes it."""

    _END = object()

    def __init__(self, source: Callable[[], Iterator[T]], depth: int, closed: threading.Event):
        self._source = source
        self._queue: queue.Queue = queue.Queue(depth)
        self._closed = closed

    def fill(self) -> None:
        """Reads the source to its end, or until it is closed."""
        end = (self._END, None)
        try:
            with contextlib.closing(self._source()) as items:
                for item in items:
                    if not self._put((item, None)):
                        return
        except BaseException as error:
            end = (self._END, error)
        self._put(end)

    def items(self) -> Iterator[T]:
        """Yields what is read, as it comes."""
        while True:
            item, error = self._queue.get()
            if error is not None:
                raise error
            if item is self._END:
                return
            yield item

    def _put(self, entry: tuple) -> bool:
        """Appends an entry; returns whether it is still wanted."""
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(entry, timeout=_WAIT_SECONDS)
                return True
        return False

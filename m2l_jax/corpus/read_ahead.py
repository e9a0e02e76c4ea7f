"""Reading ahead of the work, in threads, and no farther than memory allows."""

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Generic, TypeVar

T = TypeVar('T')

_WAIT_SECONDS = 0.2  # between looks at whether anybody still wants what was read


def read_ahead(
    sources: Sequence[Callable[[], Iterator[T]]], threads: int, depth: int
) -> Generator[Iterator[T], None, None]:
    """The iterators that `sources` give, in order, each read by one thread as it is consumed.

    Args:
      sources: called in a thread; so is what they return.
      threads: that read, a source each; no more sources than that are read before they are wanted.
      depth: items of a source that are read before they are wanted.

    Yields:
      An iterator for each source, to be exhausted before the next is taken. It raises what the
      source has raised.
    """
    feeds = [_Feed(source, depth) for source in sources]
    waiting = iter(feeds)
    lock = threading.Lock()
    room = threading.Semaphore(threads)  # a source of few items is read long before it is wanted

    def work() -> None:
        while True:
            room.acquire()
            with lock:
                feed = next(waiting, None)
            if feed is None or not feed.fill():
                return

    workers = [threading.Thread(target=work, daemon=True) for _ in range(min(threads, len(feeds)))]
    for worker in workers:
        worker.start()
    try:
        for feed in feeds:
            yield feed.items()
            room.release()
    finally:
        for feed in feeds:
            feed.close()
        room.release(threads)  # for all that wait to see that it is over
        for worker in workers:
            worker.join()


class _Feed(Generic[T]):
    """Between the thread that reads a source and the one that consumes it."""

    _END = object()

    def __init__(self, source: Callable[[], Iterator[T]], depth: int):
        self._source = source
        self._queue: queue.Queue = queue.Queue(depth)
        self._closed = threading.Event()

    def fill(self) -> bool:
        """Reads the source to its end; returns whether it was let."""
        if self._closed.is_set():
            return False
        end = (self._END, None)
        try:
            with contextlib.closing(self._source()) as items:
                for item in items:
                    if not self._put((item, None)):
                        return False
        except BaseException as error:
            end = (self._END, error)
        return self._put(end)

    def items(self) -> Iterator[T]:
        """What is read, as it comes."""
        while True:
            item, error = self._queue.get()
            if error is not None:
                raise error
            if item is self._END:
                return
            yield item

    def close(self) -> None:
        """Ends the reading."""
        self._closed.set()

    def _put(self, entry: tuple) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(entry, timeout=_WAIT_SECONDS)
                return True
            except queue.Full:
                pass
        return False

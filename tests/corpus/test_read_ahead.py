import threading

import pytest

from m2l_jax.corpus.inputs import read_ahead
from m2l_jax.interface.errors import InputError
from tests.waiting import HANG_SECONDS, wait_until


class Library:
    """Sources of a few items each, which note what is read and when they are closed."""

    def __init__(self, lengths):
        self.read = []
        self.closed = []
        self.sources = [
            lambda number=number, length=length: self._items(number, length)
            for number, length in enumerate(lengths)
        ]

    def _items(self, number, length):
        try:
            for item in range(length):
                self.read.append((number, item))
                yield number, item
        finally:
            self.closed.append(number)


def assert_read(library, lengths):
    """So many items of each source are read, and not one more."""
    wait_until(lambda: len(library.read) >= sum(lengths))
    assert sorted(library.read) == [
        (n, i) for n, length in enumerate(lengths) for i in range(length)
    ]


def reading_threads():
    return [thread for thread in threading.enumerate() if 'read_ahead' in thread.name]


@pytest.mark.parametrize('threads', [1, 3, 20])
def test_all_comes_in_order(threads):
    lengths = [3, 0, 1, 7, 2, 5]
    library = Library(lengths)
    read = [list(items) for items in read_ahead(library.sources, threads, 2)]
    assert read == [[(n, i) for i in range(length)] for n, length in enumerate(lengths)]
    assert sorted(library.closed) == list(range(6))
    assert not reading_threads()


def test_nothing_to_read_is_no_trouble():
    assert list(read_ahead([], 3, 2)) == []


def test_long_sources_are_read_no_farther_than_their_depth():
    library = Library([100] * 10)
    streams = read_ahead(library.sources, threads=2, depth=3)
    first = next(streams)
    # Of each as many as wait, and the one that finds no room.
    assert_read(library, [4, 4])
    assert [next(first) for _ in range(5)] == [(0, i) for i in range(5)]
    assert_read(library, [9, 4])
    streams.close()
    assert_read(library, [9, 4])
    assert not reading_threads()


def test_short_sources_are_read_no_farther_than_there_are_threads():
    library = Library([1] * 100)
    streams = read_ahead(library.sources, threads=3, depth=2)
    assert list(next(streams)) == [(0, 0)]
    assert_read(library, [1] * 3)
    for _ in range(4):
        list(next(streams))
    assert_read(library, [1] * 7)
    streams.close()
    assert_read(library, [1] * 7)
    assert not reading_threads()


def test_sources_are_read_at_the_same_time():
    together = threading.Barrier(3)

    def source():
        together.wait(HANG_SECONDS)  # raises unless all three come here
        yield 'read'

    assert [list(items) for items in read_ahead([source] * 3, 3, 1)] == [['read']] * 3


def test_an_error_comes_in_its_place_and_the_next_sources_after_it():
    def broken():
        yield 'good'
        raise InputError('damaged')

    def unopened():
        raise ValueError('no generator')

    library = Library([2])
    streams = read_ahead([broken, unopened, *library.sources], 2, 4)
    first = next(streams)
    assert next(first) == 'good'
    with pytest.raises(InputError, match='damaged'):
        next(first)
    with pytest.raises(ValueError, match='no generator'):
        next(next(streams))
    assert list(next(streams)) == [(0, 0), (0, 1)]
    assert list(streams) == []


@pytest.mark.parametrize(
    ('lengths', 'read'),
    [([100] * 10, [3, 2]), ([1] * 10, [1, 1])],
    ids=['full', 'waiting for the next'],
)
def test_closing_ends_threads_that_wait(lengths, read):
    library = Library(lengths)
    streams = read_ahead(library.sources, threads=2, depth=1)
    next(next(streams))
    assert_read(library, read)
    streams.close()
    assert not reading_threads()
    assert sorted(library.closed) == [0, 1]
    assert_read(library, read)  # not one more is opened


def test_an_error_of_the_consumer_ends_the_threads():
    library = Library([100] * 10)

    def consume():
        for items in read_ahead(library.sources, 2, 1):
            raise RuntimeError(next(items))

    with pytest.raises(RuntimeError, match=r'\(0, 0\)'):
        consume()
    assert not reading_threads()
    assert sorted(library.closed) == [0, 1]

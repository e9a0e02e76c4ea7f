"""Streams of audio blocks: resampled, cut, joined and regrouped."""

import collections
from collections.abc import Iterable, Iterator

import numpy as np
import soxr


def resampled_length(samples: int, source_rate: int, sample_rate: int) -> int:
    """Samples after resampling: those that begin before the source ends; soxr may give one more."""
    return samples * sample_rate // source_rate


def resample_blocks(
    blocks: Iterable[np.ndarray], source_rate: int, sample_rate: int, channels: int
) -> Iterator[np.ndarray]:
    """Resamples blocks, `[samples, channels]`, bit for bit as in one piece."""
    stream = soxr.ResampleStream(source_rate, sample_rate, channels)
    taken = given = 0
    for block in blocks:
        resampled = stream.resample_chunk(block)
        taken, given = taken + len(block), given + len(resampled)
        yield resampled
    rest = stream.resample_chunk(np.empty((0, channels), np.float32), last=True)
    yield rest[: resampled_length(taken, source_rate, sample_rate) - given]


def cut(blocks: Iterable[np.ndarray], start: int, samples: int | None) -> Iterator[np.ndarray]:
    """Yields the blocks' samples from `start` on, at most `samples` of them."""
    stop = None if samples is None else start + samples
    position = 0
    for block in blocks:
        yield block[max(0, start - position) : None if stop is None else max(0, stop - position)]
        position += len(block)


def join(blocks: Iterable[np.ndarray], channels: int) -> np.ndarray:
    """Joins blocks, `[samples, channels]`, to `[channels, samples]`."""
    held = collections.deque(blocks)
    waveform = np.empty((channels, sum(map(len, held))), np.float32)
    filled = 0
    while held:  # frees each block once it is copied
        block = held.popleft()
        waveform[:, filled : filled + len(block)] = block.T
        filled += len(block)
    return waveform


def regroup(
    blocks: Iterable[np.ndarray], channels: int, length: int, overlap: int
) -> Iterator[np.ndarray]:
    """Cuts blocks, `[samples, channels]`, into overlapping `[channels, length]`."""
    group, filled = np.empty((channels, length), np.float32), 0
    for block in blocks:
        while len(block):
            if filled == length:
                repeated = group[:, length - overlap :].copy()
                yield group
                group, filled = np.empty((channels, length), np.float32), overlap
                group[:, :overlap] = repeated
            taken = block[: length - filled]
            group[:, filled : filled + len(taken)] = taken.T
            filled, block = filled + len(taken), block[len(taken) :]
    if filled:
        yield group[:, :filled]

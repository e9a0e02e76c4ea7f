"""Joins encoded or decoded chunks."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from m2l_jax.codec.chunks import Chunk


def join_latents(
    parts: Sequence[np.ndarray], chunks: Sequence[Chunk], overlap: int = 0
) -> np.ndarray:
    """Joins the latents of each chunk, `[..., length]`, to `[..., total]`.

    Of an overlap, each chunk gives the half that is farther from its end. Vectors that complete the
    last chunk are dropped.
    """
    joined, begin = [], 0
    for part, chunk in zip(parts, chunks, strict=True):
        end = chunk.end if chunk is chunks[-1] else chunk.end - overlap // 2
        joined.append(part[..., begin - chunk.begin : end - chunk.begin])
        begin = end
    return np.concatenate(joined, axis=-1)


def join_waveforms(
    parts: Iterable[np.ndarray], chunks: Sequence[Chunk], overlap: int, step: int, reach: int
) -> Iterator[np.ndarray]:
    """Joins the waveforms of each chunk to consecutive blocks of the whole, clipped to [-1, 1].

    Overlapping chunks cross-fade linearly: decoded from the same noise, they are nearly equal
    there. Without overlap, the last frames of a chunk are added to the first of the next, as in one
    spectrogram: the reference's hard seams.

    Args:
      parts: `[channels, step·kept + reach]` of each chunk.
      chunks: see `Chunking.cut`.
      overlap: latent vectors that consecutive chunks share.
      step: samples per latent vector.
      reach: samples that the last frame covers beyond its latent vector.
    """
    rest = np.zeros((1, 0), np.float32)
    length = overlap * step - reach
    ramp = ((np.arange(length) + 0.5) / length).astype(np.float32) if overlap else None
    for number, (part, chunk) in enumerate(zip(parts, chunks, strict=True)):
        part = part.copy()
        if overlap and number:
            fade_end = (chunks[number - 1].end - chunk.begin) * step
            part[:, : fade_end - length] = 0
            part[:, fade_end - length : fade_end] *= ramp
        is_last = number == len(chunks) - 1
        if overlap and not is_last:
            fade_end = chunk.kept * step
            part[:, fade_end - length : fade_end] *= 1 - ramp
            part[:, fade_end:] = 0
        part[:, : rest.shape[1]] += rest
        done = part.shape[1] if is_last else (chunks[number + 1].begin - chunk.begin) * step
        yield np.clip(part[:, :done], -1, 1)
        rest = part[:, done:]

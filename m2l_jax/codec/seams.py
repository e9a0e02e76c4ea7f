"""What chunks gave, joined to one."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from m2l_jax.codec.chunks import Chunk


def join_latents(
    parts: Sequence[np.ndarray], chunks: Sequence[Chunk], overlap: int = 0
) -> np.ndarray:
    """Latents of each chunk, `[..., length]`, to those of the whole, `[..., total]`.

    Where chunks overlap, each gives the half that is farther from its end; what completes the last
    one is left out.
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
    """Waveforms of each chunk to consecutive blocks of the whole's, clipped to [-1, 1].

    Chunks that overlap fade into each other over the overlap: linearly, for they were decoded from
    the same noise there, and are nearly the same. Without overlap, the last frames of one are added
    to the first of the next, as they would be in one spectrogram: the reference's hard seams.

    Args:
      parts: `[channels, step·kept + reach]` of each chunk.
      chunks: see `chunks.cut`.
      overlap: latent vectors that a chunk shares with the next.
      step: samples to a latent vector.
      reach: samples that the last frame reaches beyond its latent vector's.
    """
    rest = np.zeros((1, 0), np.float32)
    for number, (part, chunk) in enumerate(zip(parts, chunks, strict=True)):
        part = part.copy()
        if overlap and number:
            fade_end = (chunks[number - 1].end - chunk.begin) * step
            ramp = _ramp(overlap * step - reach)
            part[:, : fade_end - len(ramp)] = 0
            part[:, fade_end - len(ramp) : fade_end] *= ramp
        is_last = number == len(chunks) - 1
        if overlap and not is_last:
            fade_end = chunk.kept * step
            ramp = _ramp(overlap * step - reach)
            part[:, fade_end - len(ramp) : fade_end] *= 1 - ramp
            part[:, fade_end:] = 0
        part[:, : rest.shape[1]] += rest
        done = part.shape[1] if is_last else (chunks[number + 1].begin - chunk.begin) * step
        yield np.clip(part[:, :done], -1, 1)
        rest = part[:, done:]


def _ramp(length: int) -> np.ndarray:
    return ((np.arange(length) + 0.5) / length).astype(np.float32)

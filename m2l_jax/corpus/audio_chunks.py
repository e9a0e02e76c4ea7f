"""A stream of audio, as the rows of its chunks."""

from collections.abc import Iterator, Sequence

import numpy as np

from m2l_jax.codec.batches import AudioRow
from m2l_jax.codec.chunks import Chunk
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.interface.errors import InputError


def mixed_channels(channels: int, mode: str) -> int:
    """Rows that `mix` makes of so many channels.

    Raises:
      InputError: for mid/side of more than two.
    """
    if mode == 'mid_side' and channels > 2:
        raise InputError(f'{channels} channels have no mid and side: take --channels=each or mono')
    return 1 if mode == 'mono' else channels


def mix(waveform: np.ndarray, mode: str) -> np.ndarray:
    """`[channels, samples]` as they are encoded: 'each', 'mono' (their mean), or 'mid_side'.

    Mid and side are half the sum and half the difference of left and right; of mono, mid is itself
    and there is no side.
    """
    with np.errstate(over='ignore'):  # the latents will tell, which no such number leaves finite
        if mode == 'mono':
            return waveform.mean(axis=0, keepdims=True)
        if mode == 'mid_side' and len(waveform) == 2:
            left, right = waveform
            return np.stack([(left + right) / 2, (left - right) / 2])
    return waveform


def unmix(waveform: np.ndarray, mode: str) -> np.ndarray:
    """The inverse of `mix`, but for 'mono', of which nothing else is known."""
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
            for _ in blocks:  # whose end tells whether the file is whole
                pass
        yield codec.audio_rows(stretch, chunk, start)

"""Writes audio to a pipe as it is made."""

import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from m2l_jax.audio.levels import to_int16

_INTEGERS, _FLOATS = 1, 3  # WAVE_FORMAT_PCM, WAVE_FORMAT_IEEE_FLOAT
_HEADER = '<4sI4s4sIHHIIHH4sI'
_LARGEST = (1 << 32) - 1


def write_wav(
    file: BinaryIO,
    blocks: Iterator[np.ndarray],
    sample_rate: int,
    samples: int,
    floating: bool = False,
) -> None:
    """Writes consecutive blocks as a WAV, each at once; never seeks.

    Args:
      file: to write to.
      blocks: `[channels, samples]` in [-1, 1], at least one.
      sample_rate: in Hz.
      samples: of all blocks together. Beyond 4 GiB, which its header cannot hold, it says 4 GiB, as
        streams of unknown length do.
      floating: 32-bit floats in place of 16-bit integers.
    """
    block = next(blocks, None)  # an error in the first leaves nothing written
    size = 4 if floating else 2
    frame = len(block) * size
    length = min(samples * frame, _LARGEST)
    kind = _FLOATS if floating else _INTEGERS
    sizes = kind, len(block), sample_rate, sample_rate * frame, frame, 8 * size
    riff = min(struct.calcsize(_HEADER) - 8 + length, _LARGEST)
    file.write(struct.pack(_HEADER, b'RIFF', riff, b'WAVE', b'fmt ', 16, *sizes, b'data', length))
    while block is not None:
        stored = block.astype('<f4') if floating else to_int16(block).astype('<i2')
        file.write(stored.T.tobytes())
        file.flush()
        block = next(blocks, None)

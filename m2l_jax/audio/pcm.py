"""Waveforms as 16-bit samples: what the corpus is stored in on disk and in device memory."""

from typing import Any

import numpy as np

# A waveform of full scale 1 times this, so that 16-bit files are stored as they are. What lies
# beyond is clipped; +1 itself becomes 32767.
FULL_SCALE = 32_768


def to_int16(waveform: np.ndarray) -> np.ndarray:
    """Quantises a finite waveform of full scale 1."""
    scaled = np.rint(waveform * np.float32(FULL_SCALE))
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def from_int16(samples: Any) -> Any:
    """The waveform, float32, of integers in a NumPy or JAX array."""
    return samples.astype(np.float32) / np.float32(FULL_SCALE)

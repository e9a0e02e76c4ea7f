"""This project's codec, to be timed; a `contest.Way` makes it in a process of its own."""

import time
from typing import Any

import jax
import numpy as np

from benchmarks import memory
from benchmarks.workload import Workload
from m2l_jax.codec.compile_cache import use_compile_cache
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.model.config import ModelConfig
from m2l_jax.torch_weights.state_dict import from_state_dict


class OurCodec:
    """Encodes and decodes a workload.

    Args:
      config: the model's.
      tensors: `.npz` file of the weights, by the package's names.
      workload: what is encoded, and how much decoded.
      dtype: of the computation.
    """

    def __init__(self, config: ModelConfig, tensors: str, workload: Workload, dtype: str):
        use_compile_cache()
        with np.load(tensors) as arrays:
            params = from_state_dict(dict(arrays), config)
        self._codec = EncoderDecoder.from_params(Music2Latent(config), params, dtype=dtype)
        self._audio, self._latents = workload.audio(config), workload.latents(config)

    def run(self, direction: str, batch: int) -> float:
        """Seconds of 'encode' or 'decode', from arrays in memory to arrays in memory."""
        begin = time.perf_counter()
        if direction == 'encode':
            self._codec.encode(self._audio, max_batch_size=batch)
        else:
            self._codec.decode(self._latents, max_batch_size=batch)
        return time.perf_counter() - begin

    def encode(self) -> np.ndarray:
        """The latents of the audio, `[rows, 64, frames]`."""
        return self._codec.encode(self._audio)

    def forget_peak(self) -> None:
        """Lets the peak of memory begin anew; an accelerator's stays that since the start."""
        forget_peak()

    def facts(self) -> dict[str, Any]:
        """Where it ran, and the peak of memory in GB."""
        return {'device': device_name(), 'peak_memory_gb': device_peak_bytes() / 1e9}


def device_name() -> str:
    """Of what JAX computes on."""
    return jax.local_devices()[0].device_kind


def forget_peak() -> None:
    """Lets the peak of this process's memory begin anew, if that is what it computes in."""
    if jax.default_backend() == 'cpu':
        memory.forget_peak()


def device_peak_bytes() -> int:
    """The peak of the accelerator's memory, or on a CPU of this process's."""
    statistics = jax.local_devices()[0].memory_stats()
    return statistics['peak_bytes_in_use'] if statistics else memory.peak_bytes()

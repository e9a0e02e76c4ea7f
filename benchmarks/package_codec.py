"""The PyTorch package's codec, to be timed; a `contest.Way` makes it in a process of its own."""

import contextlib
import time
from typing import Any

import numpy as np
import torch

from benchmarks import package
from benchmarks.workload import Workload
from m2l_jax.model.config import ModelConfig
from m2l_jax.torch_weights.reference import random_tensors, reference_network


class PackageCodec:
    """Encodes and decodes a workload as its `EncoderDecoder` does; see `package`.

    Args:
      config: the model's.
      tensors: `.npz` file of the weights.
      workload: what is encoded, and how much decoded.
      device: 'cpu' or 'cuda'.
      style: how the network runs.
    """

    def __init__(
        self,
        config: ModelConfig,
        tensors: str,
        workload: Workload,
        device: str,
        style: package.Style,
    ):
        self._while_it_runs = contextlib.ExitStack()  # the package reads its sizes again and again
        with np.load(tensors) as arrays:
            network = self._while_it_runs.enter_context(
                reference_network(config, dict(arrays), mixed_precision=style.autocast)
            )
        network = package.lay_out(network, style, device)
        if style.compiled:
            network.encoder.compile(dynamic=False)
            network.compile(dynamic=False)
        self._network, self._device = network, device
        self._audio, self._latents = workload.audio(config), workload.latents(config)

    def run(self, direction: str, batch: int) -> float:
        """Seconds of 'encode' or 'decode', from arrays in memory to arrays in memory."""
        begin = time.perf_counter()
        if direction == 'encode':
            package.encode(self._network, self._audio, batch, self._device).cpu()
        else:
            package.decode(self._network, self._latents, batch, self._device).cpu()
        return time.perf_counter() - begin

    def encode(self) -> np.ndarray:
        """The latents of the audio, `[rows, 64, frames]`, not in TensorFloat-32 either."""
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return package.encode(self._network, self._audio, 1, self._device).cpu().numpy()

    def close(self) -> None:
        """Gives the package its own sizes back."""
        self._while_it_runs.close()

    def forget_peak(self) -> None:
        """Lets the peak of memory begin anew."""
        package.forget_peak()

    def facts(self) -> dict[str, Any]:
        """Where it ran, the peak of memory in GB, and what float32 means; see `package`."""
        return package.facts(self._device)


class RandomWeights:
    """Writes weights that all count; in a process of its own, for it needs PyTorch.

    Args:
      config: the model's.
      path: `.npz` file to write.
    """

    def __init__(self, config: ModelConfig, path: str):
        np.savez(path, **random_tensors(config))

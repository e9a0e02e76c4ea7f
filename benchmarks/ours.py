"""This project's codec, training step and matrix products, to be timed by `contest`."""

import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from benchmarks.workload import Workload
from m2l_jax.codec.compile_cache import use_compile_cache
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.configs import default
from m2l_jax.interface.settings import build
from m2l_jax.model.autoencoder import Music2Latent, Params
from m2l_jax.model.config import ModelConfig
from m2l_jax.torch_weights.state_dict import from_state_dict
from m2l_jax.training import mesh as meshes
from m2l_jax.training.config import TrainingConfig
from m2l_jax.training.setup import Setup, shardings
from m2l_jax.training.state import ravel


class _Ours:
    """Memory and device, the same for all."""

    def limit_memory(self, share: float) -> None:
        """Does nothing: JAX keeps what it has taken, which is what it needs."""

    def forget_peak(self) -> None:
        """Restarts the peak on a CPU; an accelerator's counts from the process's start."""
        if jax.default_backend() == 'cpu':
            timing.forget_peak()

    def facts(self) -> dict[str, Any]:
        """Device, and peak of memory in GB."""
        statistics = jax.local_devices()[0].memory_stats()
        peak = statistics['peak_bytes_in_use'] if statistics else timing.peak_bytes()
        return {'device': device_name(), 'peak_memory_gb': peak / 1e9}


class OurCodec(_Ours):
    """Encodes and decodes a workload.

    Args:
      config: the model's.
      tensors: `.npz` file of the weights, by the package's names.
      workload: the audio to encode, and the number of latents to decode.
      dtype: of the computation.
    """

    def __init__(self, config: ModelConfig, tensors: str, workload: Workload, dtype: str):
        use_compile_cache()
        params = _read_params(tensors, config)
        self._codec = EncoderDecoder.from_params(Music2Latent(config), params, dtype=dtype)
        self._audio, self._latents = workload.audio(config), workload.latents(config)
        self._encoded: np.ndarray | None = None

    def run(self, direction: str, batch: int) -> float:
        """Seconds of 'encode' or 'decode', from arrays in memory to arrays in memory."""
        begin = time.perf_counter()
        if direction == 'encode':
            self._encoded = self._codec.encode(self._audio, max_batch_size=batch)
        else:
            self._codec.decode(self._latents, max_batch_size=batch)
        return time.perf_counter() - begin

    def latents(self) -> np.ndarray | None:
        """The last encoded latents, `[rows, 64, frames]`."""
        return self._encoded


class OurTraining(_Ours):
    """The default recipe's step on one device, made as `training.loop` makes it.

    Args:
      config: the model's; its `dtype` is replaced.
      tensors: `.npz` file of the weights to start from, by the package's names.
      batch: crops a step.
      frames: of a crop.
      dtype: of the computation.
    """

    def __init__(self, config: ModelConfig, tensors: str, batch: int, frames: int, dtype: str):
        # A cached program would hide the time to compile.
        jax.config.update('jax_enable_compilation_cache', False)
        config = dataclasses.replace(config, dtype=dtype)
        mesh = meshes.make_mesh(jax.local_devices()[:1])
        recipe = default.get_config()
        recipe.data.update(path='.', batch_size=batch)
        settings = dataclasses.replace(build(TrainingConfig, recipe), model=config)
        setup = Setup(settings, mesh)
        params = np.asarray(ravel(_read_params(tensors, config)))
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), setup.state)
        state = zeros.replace(params=params, ema_params=params.copy())
        self._state = jax.device_put(state, shardings(setup.state))
        random = np.random.default_rng(0)
        crops = random.standard_normal((batch, config.spectrogram.bins, frames, 2), np.float32)
        self._data = meshes.to_global_batch(0.5 * crops, mesh)
        self._steps, self._model, self._weights = setup.steps, setup.model, (tensors, config)
        begin = time.perf_counter()
        lowered = setup.make_step().lower(self._state, self._data, setup.steps)
        self._lowering = time.perf_counter() - begin
        self._step = lowered.compile()
        self._compiling = time.perf_counter() - begin - self._lowering

    def run(self, steps: int) -> float:
        """Seconds of some steps in a row."""
        begin = time.perf_counter()
        for _ in range(steps):
            self._state, metrics = self._step(self._state, self._data, self._steps)
        jax.block_until_ready((self._state, metrics))
        return time.perf_counter() - begin

    def latents(self) -> np.ndarray:
        """Those of the crops before the first step, `[batch, latent frames, 64]`."""
        encode = jax.jit(functools.partial(self._model.apply, method='encode'))
        return np.asarray(encode({'params': _read_params(*self._weights)}, self._data))

    def facts(self) -> dict[str, Any]:
        """Device, peak of memory in GB, and seconds to trace and to compile."""
        compiling = {'lowering_seconds': self._lowering, 'compiling_seconds': self._compiling}
        return {**super().facts(), **compiling}


class OurMatrixProducts:
    """Products of matrices.

    Args:
      device: 'cpu' or 'cuda'.
      dtype: of the matrices.
    """

    def __init__(self, device: str, dtype: str):
        self._device, self._dtype = device, dtype

    def peak(self) -> float:
        """Floating-point operations a second."""
        multiply = jax.jit(jnp.matmul)

        def product(size: int):
            matrix = jax.random.normal(jax.random.key(0), (size, size), self._dtype)
            return lambda: multiply(matrix, matrix).block_until_ready()

        return timing.fastest_product(product, self._device)


def device_name() -> str:
    """The name of the device that JAX computes on."""
    return jax.local_devices()[0].device_kind


def _read_params(tensors: str, config: ModelConfig) -> Params:
    with np.load(tensors) as arrays:
        return from_state_dict(dict(arrays), config)

"""This project's training step, to be timed; a `contest.Way` makes it in a process of its own."""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.matrix_peak import fastest_product, matrix_sizes
from benchmarks.our_codec import device_name, device_peak_bytes, forget_peak
from configs import default
from m2l_jax.interface.settings import build
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.model.config import ModelConfig
from m2l_jax.model.ops import kernels_for
from m2l_jax.torch_weights.state_dict import from_state_dict
from m2l_jax.training import mesh as meshes
from m2l_jax.training.state import (
    OptimizerConfig,
    TrainState,
    create_state,
    learning_rate_schedule,
    make_optimizer,
)
from m2l_jax.training.step import ConsistencyConfig, make_train_step


class OurTraining:
    """The default recipe on one device, made as `training.loop` makes it.

    Args:
      config: the model's; its `dtype` is replaced.
      tensors: `.npz` file of the weights to start from, by the package's names.
      batch: crops a step.
      frames: of a crop.
      dtype: of the computation.
    """

    def __init__(self, config: ModelConfig, tensors: str, batch: int, frames: int, dtype: str):
        # What was compiled before would hide how long it takes.
        jax.config.update('jax_enable_compilation_cache', False)
        config = dataclasses.replace(config, dtype=dtype)
        self._mesh = meshes.make_mesh(jax.local_devices()[:1])
        step, shapes = _make_step(config, self._mesh)
        self._state = jax.device_put(
            _start(shapes, config, tensors), meshes.state_shardings(self._mesh, shapes, False)
        )
        random = np.random.default_rng(0)
        crops = random.standard_normal((batch, config.spectrogram.bins, frames, 2), np.float32)
        self._data = meshes.to_global_batch(0.5 * crops, self._mesh)
        begin = time.perf_counter()
        lowered = step.lower(self._state, self._data)
        self._lowering = time.perf_counter() - begin
        self._step = lowered.compile()
        self._compiling = time.perf_counter() - begin - self._lowering

    def run(self, steps: int) -> float:
        """Seconds of so many steps."""
        begin = time.perf_counter()
        for _ in range(steps):
            self._state, metrics = self._step(self._state, self._data)
        jax.block_until_ready((self._state, metrics))
        return time.perf_counter() - begin

    def forget_peak(self) -> None:
        """Lets the peak of memory begin anew; an accelerator's stays that since the start."""
        forget_peak()

    def facts(self) -> dict[str, Any]:
        """Where it ran, the peak of memory in GB, and seconds until there was a program."""
        return {
            'device': device_name(),
            'peak_memory_gb': device_peak_bytes() / 1e9,
            'lowering_seconds': self._lowering,
            'compiling_seconds': self._compiling,
        }


class OurMatrixProducts:
    """Products of matrices, to be measured with nothing beside them.

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

        return fastest_product(product, matrix_sizes(self._device))


def _make_step(config: ModelConfig, mesh: jax.sharding.Mesh) -> tuple[Any, TrainState]:
    """The step, and its state's shapes."""
    recipe = default.get_config()
    optimizer_config = build(OptimizerConfig, recipe.optimizer)
    steps = recipe.train.steps
    model = Music2Latent(config, kernels_for(meshes.platform(mesh)))
    optimizer = make_optimizer(optimizer_config, steps)
    step = make_train_step(
        model,
        build(ConsistencyConfig, recipe.consistency),
        optimizer,
        learning_rate_schedule(optimizer_config, steps),
        ema_decay=optimizer_config.ema_decay,
        steps=steps,
        seed=recipe.seed,
        mesh=mesh,
    )
    return step, jax.eval_shape(lambda: create_state(model, optimizer, jax.random.key(0)))


def _start(shapes: TrainState, config: ModelConfig, tensors: str) -> TrainState:
    """A fresh state of the given weights; the optimiser's begins with zeros."""
    with np.load(tensors) as arrays:
        params = from_state_dict(dict(arrays), config)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return zeros.replace(params=params, ema_params=jax.tree.map(np.copy, params))

"""The model, optimiser, state and step of a training, built from its settings."""

import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.model.ops import kernels_for
from m2l_jax.training import mesh as meshes
from m2l_jax.training.config import TrainingConfig
from m2l_jax.training.state import (
    TrainState,
    learning_rate_schedule,
    make_optimizer,
    param_shapes,
    start_from,
    to_trees,
    to_vectors,
)
from m2l_jax.training.step import Fetch, TrainStep, as_given, make_train_step


class Setup:
    """The model, optimiser and state of a training on a mesh.

    Attributes:
      settings, mesh: as given.
      model, optimizer: of the settings.
      params: shapes of the parameters.
      steps: of the whole training, the step's last argument.
      state: shapes and shardings of the state, whose parts are vectors.
      stored: those of the same state in checkpoints, whose parts are trees.

    Raises:
      InputError: if the devices cannot share the batch.
    """

    def __init__(self, settings: TrainingConfig, mesh: Mesh):
        meshes.check_batch(settings.data.batch_size, settings.train.accumulate, mesh)
        self.settings, self.mesh = settings, mesh
        self.model = Music2Latent(settings.model, kernels_for(mesh.devices.flat[0]))
        self.steps = np.int32(settings.train.steps)
        self.params = param_shapes(self.model)
        self.optimizer = make_optimizer(settings.optimizer, settings.train.steps, self.params)
        size = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        if settings.train.shard_optimizer:
            size += -size % mesh.size
        self.state = self._laid_out(lambda params: start_from(params, self.optimizer, size))
        self.stored = self._laid_out(
            lambda params: to_trees(start_from(params, self.optimizer, size), self.params)
        )
        self.to_stored = jax.jit(self._to_stored, out_shardings=shardings(self.stored))
        self.from_stored = jax.jit(self._from_stored, out_shardings=shardings(self.state))

    def make_step(self, specs: Any = meshes.ROWS, fetch: Fetch = as_given) -> TrainStep:
        """The jitted training step on data of the given specs; see `make_train_step`."""
        settings = self.settings
        return make_train_step(
            self.model,
            settings.consistency,
            functools.partial(make_optimizer, settings.optimizer, shapes=self.params),
            functools.partial(learning_rate_schedule, settings.optimizer),
            ema_decay=settings.optimizer.ema_decay,
            seed=settings.seed,
            mesh=self.mesh,
            accumulate=settings.train.accumulate,
            data_specs=specs,
            fetch=fetch,
            shard_optimizer=settings.train.shard_optimizer,
            freeze=settings.freeze,
        )

    def _to_stored(self, state: TrainState) -> TrainState:
        return to_trees(state, self.params)

    def _from_stored(self, stored: TrainState) -> TrainState:
        return to_vectors(stored, self.state)

    def _laid_out(self, make: Any) -> TrainState:
        """Shapes and shardings of the state that `make` makes of parameters."""
        shapes = jax.eval_shape(make, self.params)
        shard = self.settings.train.shard_optimizer
        return jax.tree.map(
            lambda leaf, sharding: leaf.update(sharding=sharding),
            shapes,
            meshes.state_shardings(self.mesh, shapes, shard),
        )


def shardings(tree: Any) -> Any:
    """The shardings of arrays, or of shapes that have them."""
    return jax.tree.map(lambda leaf: leaf.sharding, tree)

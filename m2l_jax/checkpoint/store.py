"""Checkpoints on disk (Orbax): state, average and settings side by side."""

import contextlib
import dataclasses
import os
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from m2l_jax.interface.errors import InputError
from m2l_jax.interface.settings import build
from m2l_jax.model.autoencoder import Music2Latent, Params
from m2l_jax.model.config import ModelConfig

_FOLDER = 'checkpoints'


class CheckpointStore:
    """The checkpoints of one training run, `workdir/checkpoints/<step>/`.

    Each holds three items: `state` (all that training needs to go on), `ema` (the averaged
    parameters, all that inference needs) and `config` (the settings, as JSON).
    """

    def __init__(self, workdir: str | os.PathLike[str], keep: int | None = None):
        self._manager = ocp.CheckpointManager(
            pathlib.Path(workdir).absolute() / _FOLDER,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep),
            item_names=('state', 'ema', 'config'),
        )

    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def has_state(self, step: int) -> bool:
        """Whether training can go on from a checkpoint; not from a converted model."""
        return (self._manager.directory / str(step) / 'state').is_dir()

    def save(self, step: int, state: Any, ema_params: Params, config: Any) -> None:
        """Writes a checkpoint in the background; `config` is a settings dataclass."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                ema=ocp.args.StandardSave(ema_params),
                config=ocp.args.JsonSave(dataclasses.asdict(config)),
            ),
        )

    def save_model(self, config: ModelConfig, params: Params) -> None:
        """Writes a model that no training run of ours made, as step 0."""
        self._manager.save(
            0,
            args=ocp.args.Composite(
                ema=ocp.args.StandardSave(params),
                config=ocp.args.JsonSave({'model': dataclasses.asdict(config)}),
            ),
        )

    def read_config(self, step: int) -> dict[str, Any]:
        """The settings that a checkpoint was trained with."""
        restored = self._manager.restore(
            step, args=ocp.args.Composite(config=ocp.args.JsonRestore())
        )
        return restored['config']

    def restore(self, step: int, state: Any, ema_params: Params) -> tuple[Any, Params]:
        """Reads state and average into the shapes, types and shardings of the ones given."""
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(state), ema=ocp.args.StandardRestore(ema_params)
            ),
        )
        return restored['state'], restored['ema']

    def restore_ema(self, step: int, shapes: Params) -> Params:
        """Reads the averaged parameters alone."""
        restored = self._manager.restore(
            step, args=ocp.args.Composite(ema=ocp.args.StandardRestore(shapes))
        )
        return restored['ema']

    def close(self) -> None:
        """Waits for what is still being written."""
        self._manager.close()


def save_model(path: str | os.PathLike[str], config: ModelConfig, params: Params) -> None:
    """Writes a model without the state of a training run, for `load_model` to read.

    Args:
      path: folder; made if missing.
      config: the model's sizes.
      params: its parameters.

    Raises:
      InputError: if the folder holds checkpoints already.
    """
    with contextlib.closing(CheckpointStore(path)) as store:
        if store.latest_step() is not None:
            raise InputError(f'{path} holds checkpoints already: choose another folder')
        store.save_model(config, params)


def load_model(path: str | os.PathLike[str]) -> tuple[Music2Latent, Params]:
    """The newest checkpoint's model and averaged parameters.

    Args:
      path: a training run's folder, or its `checkpoints` folder.

    Raises:
      InputError: if there is no checkpoint.
    """
    workdir = pathlib.Path(path)
    if workdir.name == _FOLDER and not (workdir / _FOLDER).is_dir():
        workdir = workdir.parent
    if not (workdir / _FOLDER).is_dir():
        raise InputError(f'{path} holds no checkpoints: pass the --workdir of a training run')
    with contextlib.closing(CheckpointStore(workdir)) as store:
        step = store.latest_step()
        if step is None:
            raise InputError(f'{path} holds no complete checkpoint: let the training run write one')
        model = Music2Latent(build(ModelConfig, store.read_config(step)['model'], 'model'))
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
            jax.eval_shape(model.init_params, jax.random.key(0)),
        )
        return model, store.restore_ema(step, shapes)

"""Checkpoints on disk (Orbax): state, average and settings side by side."""

import contextlib
import os
import pathlib
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from m2l_jax.interface.devices import root_logger_kept, standard_jax
from m2l_jax.interface.errors import InputError, first_line
from m2l_jax.interface.paths import new_folder
from m2l_jax.interface.settings import build
from m2l_jax.model.autoencoder import Music2Latent, Params
from m2l_jax.model.config import ModelConfig

with root_logger_kept():
    import orbax.checkpoint as ocp

_FOLDER = 'checkpoints'
_SYSTEM_ERROR = 'os_error_code'  # in TensorStore's messages

Score = Callable[[Mapping[str, float]], float]


class CheckpointStore:
    """The checkpoints of one training run, `workdir/checkpoints/<step>/`.

    Each holds `state` (to resume training), `ema` (the averaged parameters, for inference) and
    `config` (the settings, as JSON). It gets its name only once it is complete.

    Args:
      workdir: folder of the training run.
      keep: number of newest checkpoints to keep, beside the best; None deletes nothing, for reading
        while another process may be writing.
      score: of an evaluation's figures, higher for better.
    """

    def __init__(
        self, workdir: str | os.PathLike[str], keep: int | None = None, score: Score | None = None
    ):
        self.workdir = pathlib.Path(workdir).absolute()
        folder = self.workdir / _FOLDER
        if keep is not None and folder.is_dir() and jax.process_index() == 0:
            # Orbax would do it in a thread, during the first save.
            _remove_unfinished(folder)
        # Orbax warns of each save without figures: it gets empty ones.
        rank = score and (lambda figures: score(figures) if figures else -np.inf)
        policy, policies = None, ocp.checkpoint_managers
        if keep is not None:
            policy = policies.LatestN(keep)
            if rank:
                best = policies.BestN(
                    get_metric_fn=rank, n=1, keep_checkpoints_without_metrics=False
                )
                policy = policies.AnyPreservationPolicy([policy, best])
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            best_fn=rank,
            async_options=ocp.options.AsyncOptions(barrier_sync_fn=_meet_unless_failing),
        )
        self._manager = ocp.CheckpointManager(
            folder, options=options, item_names=('state', 'ema', 'config')
        )

    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint; None without one."""
        return self._manager.latest_step()

    def has_state(self, step: int) -> bool:
        """True if training can resume from a checkpoint; False for a converted model."""
        return (self._manager.directory / str(step) / 'state').is_dir()

    def save(
        self,
        step: int,
        state: Any,
        ema_params: Params,
        config: Mapping[str, Any],
        figures: Mapping[str, float] | None = None,
    ) -> None:
        """Writes a checkpoint in the background; `figures` are those of an evaluation.

        `state` is all that resumes training but the average; None for a model alone.

        Raises:
          InputError: if this or an earlier checkpoint could not be written.
        """
        average, settings = ocp.args.StandardSave(ema_params), ocp.args.JsonSave(dict(config))
        items = {} if state is None else {'state': ocp.args.StandardSave(state)}
        items |= {'ema': average, 'config': settings}
        with self._explained():
            self._manager.save(step, args=ocp.args.Composite(**items), metrics=dict(figures or {}))

    def read_config(self, step: int) -> dict[str, Any]:
        """Reads a checkpoint's settings."""
        args = ocp.args.Composite(config=ocp.args.JsonRestore())
        return self._manager.restore(step, args=args)['config']

    def restore(self, step: int, state: Any, ema_params: Params) -> tuple[Any, Params]:
        """Reads state and average into the shapes, types and shardings of those given."""
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(state), ema=ocp.args.StandardRestore(ema_params)
        )
        restored = self._manager.restore(step, args=args)
        return restored['state'], restored['ema']

    def read_ema(self, step: int) -> Params:
        """Reads the averaged parameters alone, as NumPy arrays, faster than as JAX arrays."""
        folder = self._manager.directory / str(step) / 'ema'
        with contextlib.closing(ocp.StandardCheckpointHandler()) as handler:
            # Shapes from the checkpoint: tracing a model takes longer than reading.
            stand_ins = jax.tree.map(
                lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape),  # no memory
                handler.metadata(folder).tree,
            )
            return handler.restore(folder, args=ocp.args.StandardRestore(stand_ins))

    def close(self) -> None:
        """Waits for unfinished writes; raises InputError if one fails."""
        with self._explained():
            try:
                self._manager.wait_until_finished()
            except Exception:
                with contextlib.suppress(Exception):  # the same error, with less detail
                    self._manager.close()
                raise
            self._manager.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns a system error, such as a full disk, into an InputError."""
        try:
            yield
        except (OSError, ValueError) as error:
            is_system_error = isinstance(error, OSError) or _SYSTEM_ERROR in str(error)
            if not is_system_error or isinstance(error, TimeoutError):  # of Orbax's barriers
                raise
            self._manager.reload()  # it forgot steps that it was about to replace
            step = self.latest_step()
            kept = 'there is none before it' if step is None else f'that of step {step} is whole'
            # TensorStore puts the names of its files around the system's message.
            wrapped = re.search(rf': ([^:]*) \[{_SYSTEM_ERROR}', str(error))
            cause = wrapped[1] if wrapped else first_line(error)
            raise InputError(
                f'a checkpoint could not be written into {self._manager.directory} ({cause}); '
                f'{kept}'
            ) from error


def holds_checkpoint(workdir: str | os.PathLike[str]) -> bool:
    """True if a folder, which need not exist, holds a complete checkpoint."""
    return any(path.name.isdigit() for path in pathlib.Path(workdir, _FOLDER).glob('*'))


@contextlib.contextmanager
def new_store(path: str | os.PathLike[str]) -> Iterator[CheckpointStore]:
    """Yields the store of a folder without checkpoints; after an error, removes what it made.

    Raises:
      InputError: if the folder holds checkpoints already, or cannot be written into.
    """
    with new_folder(pathlib.Path(path, _FOLDER)) as folder:
        if holds_checkpoint(path):
            raise InputError(f'{path} holds checkpoints already: choose another folder')
        try:
            with contextlib.closing(CheckpointStore(path)) as store:
                yield store
        except BaseException:
            _remove_unfinished(folder, quiet_looks=5)
            raise


def save_model(path: str | os.PathLike[str], config: ModelConfig, params: Params) -> None:
    """Writes a model alone, as step 0, into a folder; `load_model` reads it.

    Raises:
      InputError: if the folder holds checkpoints already, or cannot be written into.
    """
    with new_store(path) as store:
        store.save(0, None, params, {'model': config.record()})


@standard_jax()
@root_logger_kept()
def load_model(path: str | os.PathLike[str]) -> tuple[Music2Latent, Params]:
    """Loads a checkpoint's model and averaged parameters.

    Args:
      path: folder of a training run, or its `checkpoints` folder, for the newest checkpoint; or
        the folder of one checkpoint.

    Raises:
      InputError: if there is no checkpoint.
    """
    with _opened(path) as (store, step):
        model = Music2Latent(build(ModelConfig, store.read_config(step)['model'], 'model'))
        return model, jax.device_put(store.read_ema(step), jax.local_devices()[0])


@root_logger_kept()
def read_settings(path: str | os.PathLike[str]) -> tuple[pathlib.Path, int, dict[str, Any]]:
    """The run's folder, and step and settings of the checkpoint that `load_model` loads."""
    with _opened(path) as (store, step):
        return store.workdir, step, store.read_config(step)


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[CheckpointStore, int]]:
    """The store of a path, see `load_model`, and the step of its checkpoint."""
    workdir, step = pathlib.Path(path), None
    if workdir.parent.name == _FOLDER and workdir.name.isdigit() and workdir.is_dir():
        workdir, step = workdir.parent.parent, int(workdir.name)
    elif workdir.name == _FOLDER and not (workdir / _FOLDER).is_dir():
        workdir = workdir.parent
    if not workdir.exists():
        raise InputError(
            f'{path} does not exist: pass the --workdir of a training run, a file of weights, or '
            'the name of a packaged model, small'
        )
    if not (workdir / _FOLDER).is_dir():
        raise InputError(f'{path} holds no checkpoints: pass the --workdir of a training run')
    with contextlib.closing(CheckpointStore(workdir)) as store:
        step = store.latest_step() if step is None else step
        if step is None:
            raise InputError(f'{path} holds no complete checkpoint: let the training run write one')
        yield store, step


def _meet_unless_failing(*, key: str, timeout_ms: int) -> None:
    """Waits for the other processes at a barrier of a save, unless an error is being raised.

    Without errors, they wait at another barrier: Orbax would report the error after 20 minutes.
    """
    if sys.exc_info()[1] is None:
        ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


def _remove_unfinished(folder: pathlib.Path, quiet_looks: int = 1) -> None:
    """Removes unfinished checkpoints until `quiet_looks` in a row find none.

    After a failed save, TensorStore's threads go on writing, and cannot be joined.
    """
    quiet = 0
    for _ in range(200):
        found = [path for path in folder.iterdir() if ocp.utils.is_tmp_checkpoint(path)]
        quiet = 0 if found else quiet + 1
        if quiet == quiet_looks:
            return
        for path in found:
            shutil.rmtree(path, ignore_errors=True)
        time.sleep(0.05)

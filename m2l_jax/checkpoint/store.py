"""Checkpoints on disk (Orbax): state, average and settings side by side."""

import contextlib
import dataclasses
import logging
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

from m2l_jax.interface.devices import standard_jax
from m2l_jax.interface.errors import InputError, first_line
from m2l_jax.interface.logs import root_logger_kept
from m2l_jax.interface.paths import new_folder
from m2l_jax.interface.settings import build
from m2l_jax.model.autoencoder import Music2Latent, Params
from m2l_jax.model.config import ModelConfig

with root_logger_kept():
    import orbax.checkpoint as ocp

_FOLDER = 'checkpoints'
_SYSTEM_ERROR = 'os_error_code'  # in TensorStore's messages
# TensorStore's threads cannot be waited for after a save that failed.
_LOOK_SECONDS, _QUIET_LOOKS, _MOST_LOOKS = 0.05, 5, 200


class CheckpointStore:
    """The checkpoints of one training run, `workdir/checkpoints/<step>/`.

    Each holds three items: `state` (all that training needs to go on), `ema` (the averaged
    parameters, all that inference needs) and `config` (the settings, as JSON). A checkpoint takes
    its name only once it is complete.

    Args:
      workdir: the training run's folder.
      keep: how many of the newest to keep, and the best besides; None to delete nothing, for
        reading while another process may be writing.
      score: of an evaluation's figures, higher for better.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        keep: int | None = None,
        score: Callable[[Mapping[str, float]], float] | None = None,
    ):
        self._quiet = contextlib.ExitStack()
        folder = pathlib.Path(workdir).absolute() / _FOLDER
        if keep is not None and folder.is_dir() and jax.process_index() == 0:
            _remove_unfinished(folder)
        self._manager = ocp.CheckpointManager(
            folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=_preservation(keep, score),
                best_fn=score,
                async_options=ocp.options.AsyncOptions(barrier_sync_fn=_meet_unless_failing),
            ),
            item_names=('state', 'ema', 'config'),
        )
        if keep is not None:
            self._quiet.enter_context(_only_news())

    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def has_state(self, step: int) -> bool:
        """Whether training can go on from a checkpoint; not from a converted model."""
        return (self._manager.directory / str(step) / 'state').is_dir()

    def save(
        self,
        step: int,
        state: Any,
        ema_params: Params,
        config: Mapping[str, Any],
        figures: Mapping[str, float] | None = None,
    ) -> None:
        """Writes a checkpoint in the background.

        Args:
          step: steps done.
          state: all that training needs to go on, but for the average.
          ema_params: the averaged parameters.
          config: the settings, as JSON takes them.
          figures: of the evaluation at this step, if there was one.

        Raises:
          InputError: if this or an earlier checkpoint could not be written.
        """
        with self._told():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    ema=ocp.args.StandardSave(ema_params),
                    config=ocp.args.JsonSave(dict(config)),
                ),
                metrics=None if figures is None else dict(figures),
            )

    def save_model(self, config: ModelConfig, params: Params) -> None:
        """Writes a model that no training run of ours made, as step 0, in the background."""
        with self._told():
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

    def read_ema(self, step: int) -> Params:
        """Reads the averaged parameters alone, as NumPy arrays.

        Which there are the checkpoint tells: asking a model takes longer than reading all of them,
        and so does reading them as JAX's.
        """
        folder = self._manager.directory / str(step) / 'ema'
        handler = ocp.StandardCheckpointHandler()
        try:
            stand_ins = jax.tree.map(
                lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape),  # no memory
                handler.metadata(folder).tree,
            )
            return handler.restore(folder, args=ocp.args.StandardRestore(stand_ins))
        finally:
            handler.close()

    def close(self) -> None:
        """Waits for what is still being written; raises InputError if that fails."""
        with self._quiet, self._told():
            try:
                self._manager.wait_until_finished()
            except Exception:
                with contextlib.suppress(Exception):  # it fails of the same, and says less of it
                    self._manager.close()
                raise
            self._manager.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Tells in one line of what kept a checkpoint from being written, a full disk above all."""
        try:
            yield
        except (OSError, ValueError) as error:
            if not isinstance(error, OSError) and _SYSTEM_ERROR not in str(error):
                raise  # TensorStore's are ValueErrors too
            if isinstance(error, TimeoutError):
                raise  # Orbax's, where another process does not come to what it is waited for
            # On the disk: the manager forgets steps as soon as it means to replace them.
            self._manager.reload()
            step = self.latest_step()
            kept = 'there is none before it' if step is None else f'that of step {step} is whole'
            raise InputError(
                f'a checkpoint could not be written into {self._manager.directory} '
                f'({_cause(error)}); {kept}'
            ) from error


def holds_checkpoint(workdir: str | os.PathLike[str]) -> bool:
    """True if a folder, which need not be there, holds a complete checkpoint; makes nothing."""
    return any(path.name.isdigit() for path in pathlib.Path(workdir, _FOLDER).glob('*'))


def _preservation(
    keep: int | None, score: Callable[[Mapping[str, float]], float] | None
) -> ocp.checkpoint_managers.PreservationPolicy | None:
    if keep is None:
        return None
    newest = ocp.checkpoint_managers.LatestN(keep)
    if score is None:
        return newest
    best = ocp.checkpoint_managers.BestN(
        get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False
    )
    return ocp.checkpoint_managers.AnyPreservationPolicy([newest, best])


def _meet_unless_failing(*, key: str, timeout_ms: int) -> None:
    """Waits for the other processes to come to the same point of a save.

    But not while an error is on its way: Orbax would, for twenty minutes, before it tells of it,
    and the others, which have met no error, wait at another point.
    """
    if sys.exc_info()[1] is None:
        ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


def _remove_unfinished(folder: pathlib.Path) -> None:
    """Removes what a killed process left.

    Orbax, asked to, does it in a thread that meets the first save at work.
    """
    for path in folder.iterdir():
        if ocp.utils.is_tmp_checkpoint(path):
            shutil.rmtree(path, ignore_errors=True)


def _remove_all_written(folder: pathlib.Path) -> None:
    """Removes what a save that failed has written, while its threads may still write more."""
    quiet = 0
    for _ in range(_MOST_LOOKS):
        quiet = 0 if any(folder.iterdir()) else quiet + 1
        if quiet == _QUIET_LOOKS:
            return
        _remove_unfinished(folder)
        time.sleep(_LOOK_SECONDS)


@contextlib.contextmanager
def _only_news() -> Iterator[None]:
    """Keeps Orbax from logging errors that it raises as well, and missing figures."""

    def is_news(record: logging.LogRecord) -> bool:
        if 'orbax' not in pathlib.Path(record.pathname).parts:
            return True
        return record.exc_info is None and not record.getMessage().startswith('Requested `tracked')

    logger = logging.getLogger('absl')
    logger.addFilter(is_news)
    try:
        yield
    finally:
        logger.removeFilter(is_news)


def _cause(error: Exception) -> str:
    """What the system said, where TensorStore has wrapped it into the names of its files."""
    found = re.search(rf': ([^:]*) \[{_SYSTEM_ERROR}', str(error))
    return found[1] if found else first_line(error)


def save_model(path: str | os.PathLike[str], config: ModelConfig, params: Params) -> None:
    """Writes a model without the state of a training run, for `load_model` to read.

    Args:
      path: folder; made if missing.
      config: the model's sizes.
      params: its parameters.

    Raises:
      InputError: if the folder holds checkpoints already, or cannot be written into.
    """
    with new_store(path) as store:
        store.save_model(config, params)


@contextlib.contextmanager
def new_store(path: str | os.PathLike[str]) -> Iterator[CheckpointStore]:
    """Yields the store of a folder without checkpoints; after an error, what it made is gone.

    Raises:
      InputError: if the folder holds checkpoints already, or cannot be written into.
    """
    with new_folder(pathlib.Path(path, _FOLDER)) as folder:
        with contextlib.closing(CheckpointStore(path)) as store:
            if store.latest_step() is not None:
                raise InputError(f'{path} holds checkpoints already: choose another folder')
        try:
            with _only_news(), contextlib.closing(CheckpointStore(path)) as store:
                yield store
        except BaseException:
            _remove_all_written(folder)
            raise


@standard_jax()
@root_logger_kept()
def load_model(path: str | os.PathLike[str]) -> tuple[Music2Latent, Params]:
    """A checkpoint's model and averaged parameters.

    Args:
      path: a training run's folder, or its `checkpoints` folder, for the newest checkpoint; or a
        checkpoint's own folder in there.

    Raises:
      InputError: if there is no checkpoint.
    """
    workdir, chosen = pathlib.Path(path), None
    if workdir.parent.name == _FOLDER and workdir.name.isdigit() and workdir.is_dir():
        workdir, chosen = workdir.parent.parent, int(workdir.name)
    elif workdir.name == _FOLDER and not (workdir / _FOLDER).is_dir():
        workdir = workdir.parent
    if not (workdir / _FOLDER).is_dir():
        raise InputError(f'{path} holds no checkpoints: pass the --workdir of a training run')
    with contextlib.closing(CheckpointStore(workdir)) as store:
        step = store.latest_step() if chosen is None else chosen
        if step is None:
            raise InputError(f'{path} holds no complete checkpoint: let the training run write one')
        model = Music2Latent(build(ModelConfig, store.read_config(step)['model'], 'model'))
        return model, jax.device_put(store.read_ema(step), jax.local_devices()[0])

"""That all processes of a job were started alike and see one folder: else they would part."""

import dataclasses
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from m2l_jax.interface.errors import InputError
from m2l_jax.interface.settings import build, differences
from m2l_jax.model.autoencoder import Params
from m2l_jax.training.config import TrainingConfig

_DELAY_SECONDS = 30  # in which a network file system must show a new file


def check_started_alike(settings: TrainingConfig, workdir: str | os.PathLike[str]) -> None:
    """Makes sure that config and workdir are those of process 0, in every process.

    Raises:
      InputError: in all processes if they differ in any, naming it and the fields.
    """
    if jax.process_count() == 1:
        return
    mine = {'config': dataclasses.asdict(settings), 'workdir': os.fspath(workdir)}
    first, *others = (json.loads(text) for text in _gather(json.dumps(mine)))
    for process, other in enumerate(others, 1):
        if other == first:
            continue
        old, new = (build(TrainingConfig, each['config']) for each in (first, other))
        changed = differences(old, new) + differences(first['workdir'], other['workdir'], 'workdir')
        raise InputError(
            f'process {process} was started with another config than process 0 '
            f'({"; ".join(changed)}): give all of them the same'
        )


def check_shared(folder: pathlib.Path) -> None:
    """Makes sure that all processes see the same folder, by a file that process 0 writes.

    Raises:
      InputError: in all processes if any does not.
    """
    if jax.process_count() == 1:
        return
    name = f'.of-process-0-{time.time_ns()}'
    token = folder / _gather(name)[0]
    if jax.process_index() == 0:
        token.touch()
    multihost_utils.sync_global_devices('the file is there')
    wait_until = time.monotonic() + _DELAY_SECONDS
    while not token.exists() and time.monotonic() < wait_until:
        os.listdir(folder)  # has a network file system look again
        time.sleep(0.1)
    blind = np.flatnonzero(~multihost_utils.process_allgather(np.array(token.exists())))
    if jax.process_index() == 0:
        token.unlink(missing_ok=True)
    if len(blind):
        raise InputError(
            f'process {blind[0]} does not see what process 0 writes into {folder}: '
            '--workdir must be one folder for all, on a disk that they share'
        )


def read_alike(read: Callable[[], Params | None]) -> Params | None:
    """Reads parameters, and makes sure that they are the same in every process.

    Raises:
      InputError: in all processes, if `read` does in any, or gives other parameters in any.
    """
    if jax.process_count() == 1:
        return read()
    params, told = None, {}
    try:
        params = read()
        told['digest'] = _digest(params)
    except InputError as error:
        told['error'] = str(error)
    first, *_ = everyone = [json.loads(text) for text in _gather(json.dumps(told))]
    for process, other in enumerate(everyone):
        if 'error' in other:
            raise InputError(f'process {process}: {other["error"]}')
        if other != first:
            raise InputError(
                f'process {process} reads other parameters from config.init_from than process 0: '
                'give all of them the same file, which no run is writing to'
            )
    return params


def _digest(params: Params | None) -> str:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    parts = (
        part for path, leaf in leaves for part in (str(path).encode(), np.asarray(leaf).tobytes())
    )
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _gather(text: str) -> list[str]:
    """Every process's text, in their order."""
    data = np.frombuffer(text.encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(len(data)))
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: len(data)] = data
    rows = multihost_utils.process_allgather(padded)
    return [row[:length].tobytes().decode() for row, length in zip(rows, lengths, strict=True)]

"""That all processes of a job were started alike: else they would train past each other."""

import dataclasses
import json
import os

import jax
import numpy as np
from jax.experimental import multihost_utils

from m2l_jax.interface.errors import InputError
from m2l_jax.interface.settings import build, differences
from m2l_jax.training.config import TrainingConfig


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


def _gather(text: str) -> list[str]:
    """Every process's text, in their order."""
    data = np.frombuffer(text.encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(len(data)))
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: len(data)] = data
    rows = multihost_utils.process_allgather(padded)
    return [row[:length].tobytes().decode() for row, length in zip(rows, lengths, strict=True)]

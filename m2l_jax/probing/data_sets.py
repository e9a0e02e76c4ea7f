"""Labelled clips of any data set that `--data` names."""

import os
from collections.abc import Mapping

from m2l_jax.data.tfds import is_dataset
from m2l_jax.interface.errors import InputError
from m2l_jax.probing.csv_lists import read_csv
from m2l_jax.probing.examples import Example
from m2l_jax.probing.mirdata_sets import is_mirdata, read_mirdata
from m2l_jax.probing.tfds_sets import read_tfds


def read_examples(
    data: str,
    tasks: Mapping[str, str],
    data_home: str | os.PathLike[str] | None = None,
    limit: int = 0,
    seed: int = 0,
) -> list[Example]:
    """Reads the annotations of a data set, and leaves its audio for later.

    Args:
      data: `mirdata:NAME`, `tfds:NAME`, the folder of a TFDS dataset, or a CSV file.
      tasks: see `labels.choose_tasks`.
      data_home: the folder of a data set of mirdata.
      limit: clips that are drawn by `seed` of a larger data set; 0 for all.
      seed: of the draw.

    Raises:
      InputError: if it is none of these, or cannot be read.
    """
    if is_mirdata(data):
        examples = read_mirdata(data, data_home, tasks, limit, seed)
    elif data_home is not None:
        raise InputError('--data_home is for --data=mirdata:NAME: leave it out')
    elif is_dataset(data):
        examples = read_tfds(data, tasks, limit, seed)
    elif os.path.isdir(data):
        raise InputError(f'{data} is a folder: pass a CSV file of paths and labels')
    else:
        examples = read_csv(data, tasks, limit, seed)
    if not examples:
        raise InputError(f'{data} has no clips')
    return examples

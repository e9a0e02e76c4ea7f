"""The device mesh, and where every array of training lives on it."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from m2l_jax.interface.errors import InputError

AXIS = 'data'
REPLICATED = PartitionSpec()  # parameters, optimiser, EMA, metrics
ROWS = PartitionSpec(AXIS)  # batches: the first axis is cut


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A one-axis mesh of the given devices, by default of all devices of all processes.

    Each process's devices stand together, and so do the rows of the batch that it feeds.
    """
    chosen = jax.devices() if devices is None else devices
    ordered = sorted(chosen, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(ordered), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, REPLICATED)


def check_batch(batch_size: int, parts: int, mesh: Mesh) -> None:
    """Makes sure that the devices can share a batch, and each of them take its rows in parts.

    Raises:
      InputError: naming the field to change.
    """
    if batch_size % mesh.size:
        nearest = max(1, round(batch_size / mesh.size)) * mesh.size
        raise InputError(
            f'config.data.batch_size={batch_size} is not divisible by {mesh.size} devices: '
            f'use a multiple, e.g. {nearest}'
        )
    rows = batch_size // mesh.size
    if rows % parts:
        raise InputError(
            f"config.train.accumulate={parts} does not divide a device's {rows} rows "
            f'(config.data.batch_size={batch_size} over {mesh.size} devices)'
        )


def local_rows(batch_size: int, mesh: Mesh) -> range:
    """Rows of the global batch that this process feeds."""
    per_process = batch_size // jax.process_count()
    first = jax.process_index() * per_process
    return range(first, first + per_process)


def to_global_batch(local_batch: np.ndarray, mesh: Mesh) -> jax.Array:
    """One array over the mesh out of the rows that each process feeds."""
    return jax.make_array_from_process_local_data(NamedSharding(mesh, ROWS), local_batch)

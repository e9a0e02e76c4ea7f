"""The device mesh, and where every array of training lives on it."""

import collections
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from m2l_jax.interface.errors import InputError
from m2l_jax.training.state import TrainState

AXIS = 'data'
REPLICATED = PartitionSpec()  # parameters, metrics; optimiser and EMA unless they are shared out
ROWS = PartitionSpec(AXIS)  # batches: the first axis is cut


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A one-axis mesh of the given devices, by default of all devices of all processes.

    Each process's devices stand together, and so do the rows of the batch that it feeds.
    """
    chosen = jax.devices() if devices is None else devices
    ordered = sorted(chosen, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(ordered), (AXIS,))


def platform(mesh: Mesh) -> str:
    """The platform of a mesh's devices, such as 'cpu'."""
    return mesh.devices.flat[0].platform


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, REPLICATED)


def connect(mesh: Mesh) -> None:
    """Has all devices talk once, while all processes are at the same point.

    Connections between CPUs wait for each other for half a minute only, which compiling may exceed.
    """
    zeros = to_global_batch(np.zeros(len(mesh.local_devices)), mesh)
    jax.block_until_ready(jax.jit(jnp.sum, out_shardings=replicated(mesh))(zeros))


def shared_out(mesh: Mesh, shapes: Any) -> Any:
    """The shardings of arrays of which each device holds its part.

    The largest axis that the number of devices divides is cut; an array without one stays whole.
    """

    def share(leaf: Any) -> NamedSharding:
        sizes = [size if size % mesh.size == 0 else 0 for size in leaf.shape]
        if not any(sizes):
            return replicated(mesh)
        axis = sizes.index(max(sizes))
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))

    return jax.tree.map(share, shapes)


def state_shardings(mesh: Mesh, state: TrainState, shard: bool) -> TrainState:
    """Where a state's arrays live: each device holds them whole, or its part of moments and EMA.

    After Rajbhandari et al. 2020 (ZeRO, arXiv 1910.02054), stage 1.

    Args:
      state: the arrays, or their shapes.
      shard: whether moments and EMA are shared out over the devices.
    """
    whole = jax.tree.map(lambda leaf: replicated(mesh), state)
    if not shard:
        return whole
    return whole.replace(
        ema_params=shared_out(mesh, state.ema_params),
        opt_state=shared_out(mesh, state.opt_state),
    )


def laid_out(shapes: Any, shardings: Any) -> Any:
    """The shapes of arrays that do not exist, with where each of them is to live."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def bytes_per_device(arrays: Any) -> int:
    """Bytes of arrays, or of shapes that `laid_out` gives, on each device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(arrays)
    )


def gather(mesh: Mesh, arrays: Any) -> Any:
    """The same arrays, whole on every device; to be called by all processes."""
    return jax.jit(_identity, out_shardings=replicated(mesh))(arrays)


def _identity(arrays: Any) -> Any:  # one function, for jit to know it again
    return arrays


def check_batch(batch_size: int, parts: int, mesh: Mesh) -> None:
    """Makes sure that the devices can share a batch, and each of them take its rows in parts.

    Raises:
      InputError: naming the field to change.
    """
    per_process = collections.Counter(device.process_index for device in mesh.devices.flat)
    if len(set(per_process.values())) > 1:
        raise InputError(
            f'the processes have different numbers of devices ({sorted(per_process.values())}): '
            'give each of them as many'
        )
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


def local_rows(batch_size: int) -> range:
    """Rows of the global batch that this process feeds."""
    per_process = batch_size // jax.process_count()
    first = jax.process_index() * per_process
    return range(first, first + per_process)


def to_global_batch(local_batch: np.ndarray, mesh: Mesh) -> jax.Array:
    """One array over the mesh out of the rows that each process feeds."""
    return jax.make_array_from_process_local_data(NamedSharding(mesh, ROWS), local_batch)

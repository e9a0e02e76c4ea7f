"""The device mesh, where the arrays of training live on it, and the agreement of its processes."""

import collections
import contextlib
import dataclasses
import json
import math
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from m2l_jax.interface.errors import InputError, StopRequest
from m2l_jax.interface.settings import differences
from m2l_jax.model.autoencoder import Params
from m2l_jax.training.state import TrainState

AXIS = 'data'
REPLICATED = PartitionSpec()  # parameters, metrics; moments and average unless they are sharded
ROWS = PartitionSpec(AXIS)  # batches: the first axis is divided

_DELAY_SECONDS = 30  # until a network file system shows a new file


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh of one axis, of all devices of all processes by default, ordered by process."""
    chosen = jax.devices() if devices is None else devices
    return Mesh(sorted(chosen, key=lambda device: (device.process_index, device.id)), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays that every device holds whole."""
    return NamedSharding(mesh, REPLICATED)


def connect(mesh: Mesh) -> None:
    """Connects all devices; CPUs time out after 30 s, which compilation may exceed."""
    zeros = to_global_batch(np.zeros(len(mesh.local_devices)), mesh)
    jax.block_until_ready(jax.jit(jnp.sum, out_shardings=replicated(mesh))(zeros))


def shared_out(mesh: Mesh, shapes: Any) -> Any:
    """Shardings that divide each array's largest divisible axis; without one it stays whole."""

    def share(leaf: Any) -> NamedSharding:
        sizes = [size if size % mesh.size == 0 else 0 for size in leaf.shape]
        if not any(sizes):
            return replicated(mesh)
        axis = sizes.index(max(sizes))
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))

    return jax.tree.map(share, shapes)


def state_shardings(mesh: Mesh, state: TrainState, shard: bool) -> TrainState:
    """Shardings of a state, or of its shapes; `shard` divides moments and average.

    After Rajbhandari et al. 2020 (ZeRO, arXiv 1910.02054), stage 1.
    """
    whole = jax.tree.map(lambda leaf: replicated(mesh), state)
    if not shard:
        return whole
    return whole.replace(
        ema_params=shared_out(mesh, state.ema_params),
        opt_state=shared_out(mesh, state.opt_state),
    )


def mean_over_parts(function: Callable[..., Any], parts: int, arrays: tuple[jax.Array, ...]) -> Any:
    """Mean of a function's results over equal parts of the arrays' rows; inside `shard_map`."""
    if parts == 1:
        return function(*arrays)
    split = [array.reshape(parts, -1, *array.shape[1:]) for array in arrays]  # [parts, B/parts, …]
    shapes = jax.eval_shape(function, *(array[0] for array in split))
    zeros = jax.tree.map(
        lambda shape: jax.lax.pcast(jnp.zeros(shape.shape, shape.dtype), AXIS, to='varying'), shapes
    )

    def add(total, part):
        return jax.tree.map(jnp.add, total, function(*part)), None

    total, _ = jax.lax.scan(add, zeros, split)
    return jax.tree.map(lambda leaf: leaf / parts, total)


def bytes_per_device(arrays: Any) -> int:
    """Bytes on each device of arrays, or of shapes with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(arrays)
    )


def check_batch(batch_size: int, parts: int, mesh: Mesh) -> None:
    """Checks that the devices can share a batch, each its rows in `parts`.

    Raises:
      InputError: if they cannot, naming the field to change.
    """
    per_process = collections.Counter(device.process_index for device in mesh.devices.flat)
    if len(set(per_process.values())) > 1:
        raise InputError(
            f'the processes have different numbers of devices ({sorted(per_process.values())}): '
            'give each the same number'
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
    """Joins the rows that each process feeds to one array over the mesh."""
    return jax.make_array_from_process_local_data(NamedSharding(mesh, ROWS), local_batch)


def gather_json(value: Any) -> list[Any]:
    """Gathers a value, which JSON can hold, of each process, in their order."""
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = np.ravel(multihost_utils.process_allgather(np.int32(len(data))))
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: len(data)] = data
    rows = multihost_utils.process_allgather(padded).reshape(len(lengths), -1)
    return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


def check_started_alike(settings: Any, workdir: str | os.PathLike[str]) -> None:
    """Checks that settings, a dataclass, and workdir are the same in all processes.

    Raises:
      InputError: in all processes, naming the one that differs and the fields.
    """
    first, *others = gather_json((dataclasses.asdict(settings), os.fspath(workdir)))
    for process, other in enumerate(others, 1):
        if other != first:
            changed = differences(first[0], other[0]) + differences(first[1], other[1], 'workdir')
            raise InputError(
                f'process {process} was started with another config than process 0 '
                f'({"; ".join(changed)}): give all of them the same'
            )


def check_shared(folder: pathlib.Path) -> None:
    """Checks that all processes see a file that process 0 writes into the folder.

    Raises:
      InputError: in all processes, if one does not.
    """
    if jax.process_count() == 1:
        return
    token = folder / gather_json(f'.of-process-0-{time.time_ns()}')[0]
    if jax.process_index() == 0:
        token.touch()
    multihost_utils.sync_global_devices('the file is there')
    wait_until = time.monotonic() + _DELAY_SECONDS
    while not token.exists() and time.monotonic() < wait_until:
        os.listdir(folder)  # makes a network file system look again
        time.sleep(0.1)
    seen = gather_json(token.exists())
    if jax.process_index() == 0:
        token.unlink(missing_ok=True)
    if not all(seen):
        raise InputError(
            f'process {seen.index(False)} does not see what process 0 writes into {folder}: '
            '--workdir must be one folder for all, on a disk that they share'
        )


def read_once(
    read: Callable[[], tuple[Params, Any] | None], shapes: Params
) -> tuple[Params, Any] | None:
    """Reads parameters and a note that JSON can hold, or None, in process 0; sends them to all.

    Raises:
      InputError: in all processes, if `read` does.
    """
    if jax.process_count() == 1:
        return read()
    found, error = None, ''
    if jax.process_index() == 0:
        try:
            found = read()
        except InputError as caught:
            error = str(caught)
    params, note = found or (None, None)
    error, is_there, note = gather_json((error, found is not None, note))[0]
    if error:
        raise InputError(error)
    if not is_there:
        return None
    sent = params or jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return multihost_utils.broadcast_one_to_all(sent), note


class StopAgreement:
    """Agreement of all processes on the step at which to stop, once one was asked to.

    Args:
      mesh: of all processes.
      deadline: time of `time.monotonic` at which a process counts as asked.
    """

    def __init__(self, mesh: Mesh, deadline: float = math.inf):
        self._mesh, self._deadline = mesh, deadline
        self._request = StopRequest()
        self._any = jax.jit(jnp.any, out_shardings=replicated(mesh))
        self._asked: jax.Array | None = None

    def watched(self) -> contextlib.AbstractContextManager[None]:
        """Notes the first SIGTERM or SIGINT; a second one has its usual effect."""
        return self._request.watched(
            'saving after this step, then stopping; once more stops at once'
        )

    def agreed(self) -> bool:
        """True if all are to stop; every process calls this once a step.

        With several, the answer is of the step before, so that none waits.
        """
        asked = bool(self._request) or time.monotonic() >= self._deadline
        if jax.process_count() == 1:
            return asked
        mine = np.full(len(self._mesh.local_devices), asked)
        answer, self._asked = self._asked, self._any(to_global_batch(mine, self._mesh))
        return answer is not None and bool(answer)

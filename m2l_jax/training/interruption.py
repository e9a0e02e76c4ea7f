"""Being asked to stop, where several processes train together and must stop at one step."""

import contextlib
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from m2l_jax.interface.signals import StopRequest
from m2l_jax.training import mesh as meshes


class Interruption:
    """Whether any process has been asked to stop, known to all of them at the same step.

    Args:
      mesh: of all processes.
      deadline: a `time.monotonic` from which on each is asked to.
    """

    def __init__(self, mesh: Mesh, deadline: float = math.inf):
        self._mesh, self._deadline = mesh, deadline
        self._request = StopRequest()
        self._any = jax.jit(jnp.any, out_shardings=meshes.replicated(mesh))
        self._asked: jax.Array | None = None

    def watched(self) -> contextlib.AbstractContextManager[None]:
        """Notes the first SIGTERM or SIGINT, and leaves a second to do what it always does."""
        return self._request.watched('saving after this step, then stopping')

    def agreed(self) -> bool:
        """Whether to stop; called once a step by every process, and answered alike in all.

        With several processes the answer is that to the last step's question, so that none has to
        wait for the others.
        """
        asked = bool(self._request) or time.monotonic() >= self._deadline
        if jax.process_count() == 1:
            return asked
        mine = np.full(len(self._mesh.local_devices), asked)
        rows = NamedSharding(self._mesh, meshes.ROWS)
        answer = self._asked
        self._asked = self._any(jax.make_array_from_process_local_data(rows, mine))
        return answer is not None and bool(answer)

"""Being asked to stop: by the machine that is taken back, the scheduler, or Ctrl-C."""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from m2l_jax.training import mesh as meshes

_logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """Whether any process has been asked to stop, known to all of them at the same step."""

    def __init__(self, mesh: Mesh):
        self._mesh = mesh
        self._received: signal.Signals | None = None
        self._any = jax.jit(jnp.any, out_shardings=meshes.replicated(mesh))
        self._asked: jax.Array | None = None

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Notes the first SIGTERM or SIGINT, and leaves a second to do what it always does."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread is told of signals
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        def note(number: int, frame: object) -> None:
            restore()
            self._received = signal.Signals(number)
            _logger.warning('%s: saving after this step, then stopping', self._received.name)

        for number in _SIGNALS:
            signal.signal(number, note)
        try:
            yield
        finally:
            restore()

    def agreed(self) -> bool:
        """Whether to stop; called once a step by every process, and answered alike in all.

        With several processes the answer is that to the last step's question, so that none has to
        wait for the others.
        """
        if jax.process_count() == 1:
            return self._received is not None
        mine = np.full(len(self._mesh.local_devices), self._received is not None)
        rows = NamedSharding(self._mesh, meshes.ROWS)
        answer = self._asked
        self._asked = self._any(jax.make_array_from_process_local_data(rows, mine))
        return answer is not None and bool(answer)

"""Says that a program compiles, for otherwise nothing seems to happen for minutes."""

import functools
import logging
import threading

import jax
import tqdm
from jax import monitoring

from m2l_jax.interface.progress import describe_duration

_logger = logging.getLogger(__name__)

_LONG_SECONDS = 5
# JAX's events, each by the thread that compiles.
_LOWERED = '/jax/core/compile/jaxpr_to_mlir_module_duration'
_COMPILED = '/jax/core/compile/backend_compile_duration'


@functools.cache
def watch_compilations() -> None:
    """Has process 0 log each compilation of over 5 s."""
    watch = _Watch()
    monitoring.register_event_duration_secs_listener(watch.after)


class _Watch:
    """Compilations under way, by thread."""

    def __init__(self):
        self._timers: dict[int, threading.Timer] = {}

    def after(self, event: str, seconds: float, fun_name: str = '', **_: object) -> None:
        """Takes an event at its end: what is lowered is compiled next, or read from the cache."""
        if event not in (_LOWERED, _COMPILED):
            return
        name, thread = _readable(fun_name), threading.get_ident()
        if timer := self._timers.pop(thread, None):
            timer.cancel()
        if event == _LOWERED:
            timer = threading.Timer(
                _LONG_SECONDS, _log, ['compiling %s, which may take minutes', name]
            )
            timer.daemon = True
            self._timers[thread] = timer
            timer.start()
        elif seconds > _LONG_SECONDS:
            _log('compiled %s in %s', name, describe_duration(seconds))


def _readable(fun_name: str) -> str:
    name = fun_name.removeprefix('jit(').removesuffix(')').lstrip('_')
    return 'a function' if name == '<lambda>' else name


def _log(message: str, *arguments: object) -> None:
    if jax.process_index() == 0:
        with tqdm.tqdm.external_write_mode():  # clears the progress bar meanwhile
            _logger.info(message, *arguments)

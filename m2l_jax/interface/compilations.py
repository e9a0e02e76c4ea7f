"""Says that a program compiles, for otherwise nothing seems to happen for minutes."""

import contextlib
import functools
import json
import logging
import pathlib
import threading

import jax
import tqdm
from jax import monitoring

from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import make_folder, user_cache_folder, write_json
from m2l_jax.interface.progress import describe_duration

_logger = logging.getLogger(__name__)
_lock = threading.Lock()  # of the file below

_LONG_SECONDS = 5
_UNNAMED = 'a function'
# JAX's events, each by the thread that compiles.
_LOWERED = '/jax/core/compile/jaxpr_to_mlir_module_duration'
_COMPILED = '/jax/core/compile/backend_compile_duration'


@functools.cache
def watch_compilations() -> None:
    """Has process 0 log each compilation of over 5 s, with how long it took last time."""
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
            timer = threading.Timer(_LONG_SECONDS, _begin, [name])
            timer.daemon = True
            self._timers[thread] = timer
            timer.start()
        elif seconds > _LONG_SECONDS:
            _end(name, seconds)


def _readable(fun_name: str) -> str:
    name = fun_name.removeprefix('jit(').removesuffix(')').lstrip('_')
    return _UNNAMED if name == '<lambda>' else name


def _begin(name: str) -> None:
    last = _last_times().get(_key(name))
    if last is None:
        _log('compiling %s, which may take minutes', name)
    else:
        _log('compiling %s, which took %s last time', name, describe_duration(last))


def _end(name: str, seconds: float) -> None:
    _log('compiled %s in %s', name, describe_duration(seconds))
    if name == _UNNAMED:
        return
    with contextlib.suppress(InputError, OSError, RuntimeError), _lock:  # nothing depends on it
        make_folder(_file().parent)
        write_json(_file(), {**_last_times(), _key(name): round(seconds, 1)})


def _key(name: str) -> str:
    return f'{name} on {jax.default_backend()}'


def _last_times() -> dict[str, float]:
    """Seconds by program; none from a missing or damaged file."""
    try:
        times = json.loads(_file().read_text())
        return {name: float(seconds) for name, seconds in times.items()}
    except (OSError, RuntimeError, ValueError, TypeError, AttributeError):
        return {}


def _file() -> pathlib.Path:
    return user_cache_folder() / 'compile_seconds.json'


def _log(message: str, *arguments: object) -> None:
    if jax.process_index() == 0:
        with tqdm.tqdm.external_write_mode():  # clears the progress bar meanwhile
            _logger.info(message, *arguments)

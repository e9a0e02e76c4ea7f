import json
import logging
import threading

import jax
import pytest
from jax import monitoring

from m2l_jax.interface import compilations


@pytest.fixture
def watch(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, 'm2l_jax')
    monkeypatch.setenv('M2L_JAX_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(compilations, '_LONG_SECONDS', 1e-3)
    return compilations._Watch()


def begin(watch, name):
    """Waits until what is said of a long compilation has been said."""
    watch.after(compilations._LOWERED, 0.1, name)
    watch._timers[threading.get_ident()].join()


def test_a_long_compilation_says_how_long_it_took_last_time(watch, caplog, tmp_path):
    begin(watch, 'jit(train_step)')
    watch.after(compilations._COMPILED, 83.04, 'jit(train_step)')
    begin(watch, 'jit(train_step)')
    begin(watch, 'jit(_other)')
    for _ in range(2):  # any function may have no name
        begin(watch, 'jit(<lambda>)')
        watch.after(compilations._COMPILED, 8, 'jit(<lambda>)')
    assert caplog.messages == [
        'compiling train_step, which may take minutes',
        'compiled train_step in 83 s',
        'compiling train_step, which took 83 s last time',
        'compiling other, which may take minutes',
        *2 * ['compiling a function, which may take minutes', 'compiled a function in 8 s'],
    ]
    (tmp_path / 'cache' / 'compile_seconds.json').write_text('[')  # damaged
    begin(watch, 'jit(train_step)')
    assert caplog.messages[-1] == 'compiling train_step, which may take minutes'
    watch.after(compilations._COMPILED, 7.0, 'jit(train_step)')
    times = json.loads((tmp_path / 'cache' / 'compile_seconds.json').read_text())
    assert times == {'train_step on cpu': 7.0}


def test_a_short_one_says_nothing(watch, caplog, monkeypatch):
    monkeypatch.setattr(compilations, '_LONG_SECONDS', 1000)
    watch.after(compilations._LOWERED, 0.1, 'jit(step)')
    (timer,) = watch._timers.values()
    watch.after(compilations._COMPILED, 999, 'jit(step)')
    timer.join()
    assert not watch._timers
    assert not caplog.messages


def test_jax_tells_of_both_events():
    """By names that are not part of its interface."""
    told = []

    def hear(event, seconds, fun_name='', **_):
        if event in (compilations._LOWERED, compilations._COMPILED):
            told.append((event, fun_name))

    def doubled(x):
        return x * 2

    monitoring.register_event_duration_secs_listener(hear)
    try:
        jax.jit(doubled)(1.0)
    finally:
        monitoring.unregister_event_duration_listener(hear)
    assert told == [
        (compilations._LOWERED, 'jit(doubled)'),
        (compilations._COMPILED, 'jit(doubled)'),
    ]

import logging
import threading

import jax
import jax.numpy as jnp
import pytest
from jax import monitoring

from m2l_jax.interface import compilations
from m2l_jax.interface.devices import compute_once


@pytest.fixture
def watch(monkeypatch, caplog):
    caplog.set_level(logging.INFO, 'm2l_jax')
    monkeypatch.setattr(compilations, '_LONG_SECONDS', 1e-3)
    return compilations._Watch()


def begin(watch, name):
    """Waits until what is said of a long compilation has been said."""
    watch.after(compilations._LOWERED, 0.1, name)
    watch._timers[threading.get_ident()].join()


def test_a_long_compilation_is_told_by_its_name(watch, caplog):
    begin(watch, 'jit(train_step)')
    watch.after(compilations._COMPILED, 83.04, 'jit(train_step)')
    begin(watch, 'jit(train_step)')  # of another model, perhaps: nothing is said of the first
    begin(watch, 'jit(_other)')
    begin(watch, 'jit(<lambda>)')
    assert caplog.messages == [
        'compiling train_step, which may take minutes',
        'compiled train_step in 83 s',
        'compiling train_step, which may take minutes',
        'compiling other, which may take minutes',
        'compiling a function, which may take minutes',
    ]


def test_an_initialisation_has_a_name(watch, caplog):
    monitoring.register_event_duration_secs_listener(watch.after)
    try:
        compute_once(lambda: jnp.arange(3) * 3)
    finally:
        monitoring.unregister_event_duration_listener(watch.after)
    names = {message.partition(' in ')[0] for message in caplog.messages}
    assert {'compiled initialisation'} <= names
    assert not {name for name in names if 'a function' in name}


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

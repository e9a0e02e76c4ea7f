import sys
import types

from m2l_jax.interface.logs import hush_closed_loops


def test_what_is_raised_into_a_closed_event_loop_is_dropped_and_all_else_shown(monkeypatch):
    shown = []
    monkeypatch.setattr(sys, 'unraisablehook', shown.append)
    hush_closed_loops()
    closed, other = (
        types.SimpleNamespace(exc_value=RuntimeError(message))
        for message in ('Event loop is closed', 'another')
    )
    sys.unraisablehook(closed)
    sys.unraisablehook(other)
    assert shown == [other]

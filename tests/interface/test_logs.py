import types

from m2l_jax.interface.command import show_unraisable


def test_what_is_raised_into_a_closed_event_loop_is_dropped_and_all_else_shown():
    shown = []
    closed, other = (
        types.SimpleNamespace(exc_value=RuntimeError(message))
        for message in ('Event loop is closed', 'another')
    )
    show_unraisable(shown.append, closed)
    show_unraisable(shown.append, other)
    assert shown == [other]

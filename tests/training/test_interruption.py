import os
import signal

import pytest

from m2l_jax.training import mesh as meshes


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_once_and_handlers_are_put_back(number):
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    agreement = meshes.StopAgreement(meshes.make_mesh())
    with agreement.watched():
        assert not agreement.agreed()
        os.kill(os.getpid(), number)
        assert agreement.agreed()
        # A second one does what it always does.
        assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before
    assert agreement.agreed()


def test_without_a_signal_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with meshes.StopAgreement(meshes.make_mesh()).watched():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_from_the_deadline_on_it_is_to_stop(monkeypatch):
    monkeypatch.setattr('time.monotonic', lambda: 100.0)
    assert meshes.StopAgreement(meshes.make_mesh(), deadline=100.0).agreed()
    assert not meshes.StopAgreement(meshes.make_mesh(), deadline=100.1).agreed()

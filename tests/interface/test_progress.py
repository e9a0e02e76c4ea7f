import logging
import signal

import pytest

from m2l_jax.interface.errors import Interrupted
from m2l_jax.interface.progress import describe_duration, progress, shown


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [
        (0.4, '0 s'),
        (89, '89 s'),
        (100, '2 min'),
        (3540, '59 min'),
        (3599, '1 h 0 min'),
        (12_000, '3 h 20 min'),
        (190_800, '2 d 5 h'),
    ],
)
def test_durations_are_told_as_people_do(seconds, text):
    assert describe_duration(seconds) == text


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_ends_the_work_at_the_next_step(number):
    before = signal.getsignal(number)
    with progress(3, 'piece', 'three pieces') as advance:
        advance()
        signal.raise_signal(number)  # raises nothing here, where JAX might ignore it
        with pytest.raises(Interrupted, match=r'^stopped: run the same command again$'):
            advance()
    assert signal.getsignal(number) == before


def test_results_pass_and_a_line_tells_how_far_they_are(monkeypatch, caplog):
    caplog.set_level(logging.INFO, 'm2l_jax')
    times = iter(range(100, 1000, 20))
    monkeypatch.setattr('time.monotonic', lambda: next(times))
    assert list(shown('abcd', 4, 'chunk', 'decoding')) == list('abcd')
    assert caplog.messages == ['50%: decoding, 40 s left', '100%: decoding, 0 s left']

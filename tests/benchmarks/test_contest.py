"""Preparing, trying and timing, of what only says how long it took."""

import math
import os
import socket
import threading
import time
import types
from multiprocessing.connection import Connection

import numpy as np
import pytest

from benchmarks import contest, units
from benchmarks.remote import Failed, Remote
from benchmarks.units import Units
from m2l_jax.interface.errors import InputError


class Sleeper:
    """Says that it took as long as it is told to, unless it fails.

    Args:
      fails: raised at once.
      port: without which it lacks memory.
      least: share of memory without which it lacks some.
      latents: the value of each.
      file: made as soon as it runs forever.
      folder: where it says that it gets ready, and waits for another that does.
    """

    def __init__(
        self, fails=None, port=None, least=0.0, latents=None, file=None, folder=None, unlike=None
    ):
        self._least, self._latents, self._file, self._folder = least, latents, file, folder
        if fails:
            raise fails
        if port:
            try:
                self._only_one = socket.create_server(('localhost', port))
            except OSError as error:
                raise MemoryError('out of memory') from error

    def limit_memory(self, share):
        if share < self._least:
            raise MemoryError('CUDA out of memory.\nTried to allocate a lot')
        if self._folder and share < 1:
            (self._folder / str(os.getpid())).touch()
            while len(list(self._folder.iterdir())) < 2:
                time.sleep(0.01)

    def latents(self):
        return self._latents and np.full(3, self._latents)

    def run(self, seconds):
        if seconds < 0:
            os._exit(3)
        if seconds == math.inf:
            self._file.touch()
            threading.Event().wait()
        return seconds

    def forget_peak(self):
        pass

    def facts(self):
        return {}


MAKE = f'{__name__}:Sleeper'


def sleeper(name, seconds, fails=None, **more):
    return contest.Way(name, MAKE, (('fails', fails), *more.items()), (seconds,))


def hold(match, turns, *limits):
    with Units(1, *limits) as ready:
        return contest.hold({'float32': match}, turns, ready)['float32']


@pytest.fixture
def endless(tmp_path, monkeypatch):
    """One that never ends; and nobody's time is over but its own, once it has begun."""
    begun, poll = tmp_path / 'begun', Connection.poll

    def wait(connection, seconds):
        while not poll(connection, 0.05):
            if begun.exists():
                begun.rename(tmp_path / 'over')
                return False
        return True

    monkeypatch.setattr(Connection, 'poll', wait)
    return sleeper('endless', math.inf, file=begun)


def test_what_fails_or_takes_too_long_is_told_and_the_fastest_runs(endless):
    broken = sleeper('broken', 1.0, OSError('no compiler\nand more'))
    fast, slow = sleeper('fast', 1.0, unlike='slow'), sleeper('slow', 4.0)
    match = contest.Match(ours=[slow, fast], package=[broken, slow, endless], default=slow)
    figures = hold(match, 2, 1.0)
    assert figures['tried'] == {
        'broken': 'OSError: no compiler',
        'slow': 4.0,
        'endless': 'took more than 1 s',
        'fast': 1.0,
    }
    assert figures['ways'] == {'ours': 'fast', 'package default': 'slow', 'package best': 'slow'}
    assert figures['times_as_fast']['over package best']['by_round'] == [4.0, 4.0]
    assert 'failed' not in figures
    # Without a compiler the package's best is its default.
    figures = hold(contest.Match(ours=[fast], package=[broken], default=slow), 1)
    assert figures['tried'] == {'broken': 'OSError: no compiler', 'slow': 4.0}
    assert figures['ways'] == {'ours': 'fast', 'package default': 'slow', 'package best': 'slow'}


@pytest.mark.parametrize('side_by_side', [1, 2])
def test_like_is_compared_with_like(side_by_side):
    ways = {
        name: sleeper(name, seconds, latents=latents)
        for name, seconds, latents in (
            ('ours float32', 2.0, 1.0),
            ('ours bfloat16', 1.0, 1.01),
            ('package eager', 4.0, 2.0),
            ('package eager autocast', 3.0, 2.2),
            ('package compiled autocast', 2.0, 2.002),
            ('package tuned autocast', 8.0, None),
        )
    }
    ours, half, eager, *autocast = ways.values()
    matches = {
        'bfloat16': contest.Match([half], autocast, autocast[0]),
        'float32': contest.Match([ours], [eager], eager),
    }
    with Units(side_by_side) as ready:
        figures = contest.hold(matches, 1, ready)
    assert figures['float32']['times_as_fast']['over package best']['median'] == 2.0
    assert 'latents_snr' not in figures['float32']
    assert figures['bfloat16']['ways'] == {
        'ours': 'ours bfloat16',
        'package default': 'package eager autocast',
        'package best': 'package compiled autocast',
    }
    assert figures['bfloat16']['times_as_fast']['over package default']['median'] == 3.0
    assert figures['bfloat16']['times_as_fast']['over package best']['median'] == 2.0
    assert figures['bfloat16']['latents_snr'] == {
        'ours bfloat16': 40.0,
        'package eager autocast': 20.0,
        'package compiled autocast': 60.0,
    }


def test_turns_of_those_that_do_not_fit_together(capfd):
    with socket.create_server(('localhost', 0)) as free:
        port = free.getsockname()[1]
    ours = sleeper('ours', 1.0, port=port)
    theirs = sleeper('theirs', 3.0, port=port, unlike='ours')
    figures = hold(contest.Match([ours], [theirs], theirs), 2)
    assert figures['seconds_by_round']['ours'] == [1.0, 1.0]
    assert figures['times_as_fast']['over package best']['by_round'] == [3.0, 3.0]
    assert figures['facts']['ours'] == {'first_turn_seconds': 1.0, 'alone': True}
    assert 'not side by side: MemoryError: out of memory' in capfd.readouterr().err
    assert figures['tried'] == {}


def test_ours_and_the_default_must_run_and_the_rest_is_timed():
    broken, fast = sleeper('broken', 1.0, OSError('no memory')), sleeper('fast', 1.0)
    other = sleeper('other', 2.0, InputError('none at all'))
    figures = hold(contest.Match([broken, other], [fast], fast), 1)
    assert figures['failed'] == ('ours cannot run (broken: OSError: no memory; other: none at all)')
    assert figures['seconds'] == {'package default': 1.0, 'package best': 1.0}
    figures = hold(contest.Match([fast], [broken], broken), 1)
    assert figures['failed'] == 'package default cannot run (broken: OSError: no memory)'
    assert figures['seconds'] == {'ours': 1.0}
    assert figures['times_as_fast'] == {}


def test_what_is_late_is_left_out_and_the_rest_is_timed(endless, monkeypatch):
    over = dict(endless.options)['file'].with_name('over')
    clock = types.SimpleNamespace(monotonic=lambda: 100.0 if over.exists() else 0.0)
    monkeypatch.setattr(units, 'time', clock)
    fast, later = sleeper('fast', 1.0), sleeper('later', 1.0, unlike='fast')
    match = contest.Match([fast], [endless, later], fast)
    assert hold(match, 1, None, 50.0)['tried'] == {
        'fast': 1.0,
        'endless': 'not ready in time',
        'later': 'not ready in time',
    }


def test_two_get_ready_at_once(tmp_path):
    """Either waits for the other, in its half of the memory."""
    first, second = (sleeper(name, 1.0, folder=tmp_path, unlike=name) for name in ('a', 'b'))
    with Units(2) as ready:
        ready.prepare([first, second])
        assert first in ready
        assert second in ready
    assert first not in ready


def test_one_that_lacks_memory_is_tried_again_alone(capfd):
    ways = [sleeper(f'from {least}', 1.0, least=least) for least in (0.3, 0.4, 1.5)]
    with Units(3) as ready:
        ready.prepare(ways)
        assert [way in ready for way in ways] == [True, True, False]
        assert ready.lacks_memory(ways[2])
    assert ready.failures == {ways[2]: 'MemoryError: CUDA out of memory.'}
    reports = capfd.readouterr().err.splitlines()
    assert reports.count('from 0.4: MemoryError: CUDA out of memory.') == 1
    assert reports.count('from 1.5: MemoryError: CUDA out of memory.') == 2


def test_those_that_share_a_process_go_on_without_one_that_ends_it():
    ways = [sleeper(name, seconds) for name, seconds in (('a', 1.0), ('b', -1.0), ('c', 2.0))]
    with Units() as ready:
        ready.prepare(ways)
        assert ready.failures == {ways[1]: 'its process ended with code 3'}
        assert ready.remote(ways[0]) is ready.remote(ways[2])
        with pytest.raises(Failed, match='its process ended with code 3'):
            ready.remote(ways[1])
    assert ready.first_seconds == {ways[0]: 1.0, ways[2]: 2.0}


def test_a_mistake_over_there_is_one_here():
    with pytest.raises(InputError, match='of the user'):
        Remote(MAKE, {'fails': InputError('of the user')})
    with pytest.raises(Failed, match='ZeroDivisionError'):
        Remote(MAKE, {'fails': ZeroDivisionError()})


def test_a_process_that_ends_fails_this_call_and_the_next():
    with Remote(MAKE, {'fails': None}) as remote:
        for _ in range(2):
            with pytest.raises(Failed, match='its process ended with code 3'):
                remote.call('run', -1)

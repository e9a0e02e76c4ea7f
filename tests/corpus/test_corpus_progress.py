import dataclasses
import json
import logging

import pytest

from m2l_jax.audio import suffixes
from m2l_jax.corpus.plan import Item, Shard, ShardSummary
from m2l_jax.corpus.run import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""

    class Clock:
        now = 100.0

    monkeypatch.setattr('time.monotonic', lambda: Clock.now)
    return Clock


def make_shards(count):
    items = (Item('a', '', 600_000), Item('b', '', 400_000))
    return [Shard(number, items) for number in range(count)]


def summarise(shard, failures=()):
    return ShardSummary(
        shard.number, 2 - len(failures), 7200.0 - 3600 * len(failures), 50, (), failures
    )


def test_what_was_done_before_counts_as_done_and_not_as_speed(clock, caplog):
    caplog.set_level(logging.INFO, 'm2l_jax')
    shards = make_shards(10)
    progress = Progress(shards)
    clock.now = 500
    progress.start(shards[4:])
    progress.advance(shards[4], 1800, 250_000)
    progress.advance(shards[5], 1800, 0)
    assert caplog.messages == []
    clock.now += 31
    progress.advance(shards[4], 1800, 250_000)
    clock.now += 29
    progress.after(shards[4], summarise(shards[4], (('b', 'no audio'),)))
    progress.drop(shards[5])
    clock.now += 40
    progress.after(shards[5], summarise(shards[5]))
    clock.now += 31
    progress.show()
    assert caplog.messages == [
        '45%: 20 files, 1.50 h of audio, 174.2 times real time, 0 failures, 6 min left',
        'skipped b: no audio',
        '60%: 20 files, 3.00 h of audio, 108.0 times real time, 1 failures, 3 min left',
        '60%: 20 files, 3.00 h of audio, 82.4 times real time, 1 failures, 4 min left',
    ]
    clock.now += 4
    report = progress.close()
    assert json.loads(json.dumps(dataclasses.asdict(report))) == {
        'seconds': 135,
        'shards': 2,
        'files': 3,
        'failures': 1,
        'warnings': 0,
        'hours': 3.0,
        'times_real_time': 80.0,
        'latents': 100,
        'shards_before': 4,
        'files_before': 0,
        'shards_missing': 4,
        'left_out': {'files': 0, 'suffixes': {}, 'names': []},
    }
    assert report.describe() == (
        '3 files, 3 h 0 min of audio in 2 min: 80.0 times real time, 100 latent vectors, '
        '1 failures (failures.csv)\n'
        '4 shards were done before\n4 shards are missing'
    )


def test_warnings_and_what_is_left_out_are_in_the_report(clock, caplog):
    caplog.set_level(logging.INFO, 'm2l_jax')
    left_out = suffixes.left_out(['b/x.m4a', 'a.wma', 'b/y.m4a'])
    shards = make_shards(2)
    progress = Progress(shards, left_out)
    progress.start(shards)
    odd = (('a', 'too loud: peak 9'), ('b', 'all samples are equal (0.0): silence'))
    progress.after(shards[0], dataclasses.replace(summarise(shards[0]), warnings=odd))
    report = progress.close()
    assert caplog.messages == [f'{source}: {reason}' for source, reason in odd]
    assert report.warnings == 2
    assert ', 0 failures, 2 warnings (warnings.csv)\n1 shards are missing\n' in report.describe()
    assert report.describe().splitlines()[-1] == left_out.describe()
    assert dataclasses.asdict(report)['left_out'] == {
        'files': 3,
        'suffixes': {'.m4a': 2, '.wma': 1},
        'names': ['a.wma', 'b/x.m4a', 'b/y.m4a'],
    }
    complete = Progress(shards, left_out)
    complete.start(())
    assert complete.close().describe().splitlines()[-1] == left_out.describe()


def test_nothing_to_do_is_a_report_too(clock):
    shards = make_shards(2)
    progress = Progress(shards)
    progress.start(())
    report = progress.close()
    assert (report.shards_before, report.shards_missing, report.times_real_time) == (2, 0, 0.0)

import itertools
import random

import pytest

from m2l_jax.corpus.plan import Item, Shard, parse_share, plan_shards, share_of
from m2l_jax.interface.errors import InputError


def make_items(sizes):
    return [
        Item(f'album/{number}.flac', f'/music/album/{number}.flac', size)
        for number, size in enumerate(sizes)
    ]


def test_every_item_is_in_one_shard_whatever_the_order():
    items = make_items(range(1000, 200_000, 997))
    shards = plan_shards(items, 1.0, 1000)
    assert sorted(item.source for shard in shards for item in shard.items) == sorted(
        item.source for item in items
    )
    assert [shard.number for shard in shards] == list(range(len(shards)))
    random.Random(0).shuffle(items)
    assert plan_shards(items, 1.0, 1000) == shards
    # Each but the last would not have held the next shard's first item.
    for shard, following in itertools.pairwise(shards):
        assert shard.bytes <= 1_000_000 < shard.bytes + following.items[0].bytes


def test_neighbours_in_a_folder_are_spread():
    shards = plan_shards(make_items([1000] * 100), 1.0, 10)
    assert [len(shard.items) for shard in shards] == [10] * 10
    numbers = sorted(int(item.source[6:-5]) for item in shards[0].items)
    assert numbers[-1] - numbers[0] > 50


def test_an_item_larger_than_a_shard_has_one_of_its_own_and_an_empty_one_costs_nothing():
    (large,) = plan_shards(make_items([5_000_000]), 1.0, 10)
    assert large.bytes == 5_000_000
    shards = plan_shards(make_items([5_000_000, 5_000_000, 5_000_000]), 1.0, 10)
    assert [len(shard.items) for shard in shards] == [1, 1, 1]
    (empty,) = plan_shards(make_items([0, 0, 0]), 1.0, 10)
    assert len(empty.items) == 3
    assert plan_shards([], 1.0, 10) == ()


def test_names_of_any_bytes_can_be_planned():
    items = [Item('a\udcff.wav', '/a\udcff.wav', 1), Item('b\t\n.wav', '/b\t\n.wav', 1)]
    (shard,) = plan_shards(items, 1.0, 10)
    assert set(shard.items) == set(items)


def test_one_name_twice_is_refused():
    items = [*make_items([1, 2]), Item('album/1.flac', '/other/1.flac', 3)]
    with pytest.raises(InputError, match=r"1\.flac would both be stored as 'album/1\.flac'"):
        plan_shards(items, 1.0, 10)


@pytest.mark.parametrize(
    ('limits', 'flag'),
    [((0, 1), 'shard_megabytes=0'), ((float('nan'), 1), 'shard_megab'), ((1, 0), 'shard_files=0')],
)
def test_limits_are_checked(limits, flag):
    with pytest.raises(InputError, match=f'^--{flag}'):
        plan_shards([], *limits)


def test_shares_are_parts_of_the_plan():
    shards = [Shard(number, ()) for number in range(7)]
    shares = [share_of(shards, *parse_share(f'{index}/3')) for index in range(3)]
    assert [[shard.number for shard in share] for share in shares] == [[0, 3, 6], [1, 4], [2, 5]]
    assert share_of(shards, 5, 9) == (shards[5],)
    assert share_of(shards, 8, 9) == ()


@pytest.mark.parametrize('text', ['', '3', '3/', '-1/4', '1/4/2', '1.0/4', 'a/b'])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(InputError, match=rf'^--share={text} must be i/n, e\.g\. 0/16'):
        parse_share(text)


@pytest.mark.parametrize('text', ['4/4', '16/16', '0/0'])
def test_a_share_beyond_the_last_is_refused(text):
    with pytest.raises(InputError, match=rf'^--share={text} .* counted from 0'):
        parse_share(text)

import csv
import dataclasses
import hashlib
import json
import math
import multiprocessing
import os
import pathlib

import pytest

from m2l_jax.corpus.ledger import Ledger
from m2l_jax.corpus.plan import Item, Output, Shard, ShardSummary
from m2l_jax.interface.errors import InputError

SETTINGS = {'model': 'abc', 'overlap': 4, 'dtypes': ('float32', 'float16')}
ITEMS = [Item('a/1.wav', '/in/a/1.wav', 10), Item('b.wav', '/in/b.wav', 20)]
SHARDS = [Shard(0, (ITEMS[1],)), Shard(1, (ITEMS[0],)), Shard(2345, ())]


def make_summary(folder, number, failures=()):
    content = f'latents of {number}'.encode()
    path = pathlib.Path(folder, f'deep/{number}.npz')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    output = Output(
        f'deep/{number}.npz', len(content), hashlib.sha256(content).hexdigest(), number + 1
    )
    return ShardSummary(number, 1, 1800.0, 100, (output,), tuple(failures))


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / 'out')
    ledger.claim(SETTINGS, ITEMS)
    return ledger


def test_a_committed_shard_is_done_for_all_who_look(ledger):
    summary = make_summary(ledger.folder, 2345, [('c\udcff\n.wav', 'it, is "empty"')])
    assert ledger.missing([SHARDS[2]])
    ledger.commit(summary)
    other = Ledger(ledger.folder)
    assert not other.missing([SHARDS[2]])
    assert other.missing(SHARDS) == tuple(SHARDS[:2])
    assert list(other.summaries(SHARDS[2:])) == [summary]
    assert sorted(path.name for path in ledger.folder.rglob('*2345*')) == [
        '02345.json',
        '2345.npz',
    ]


def test_a_shard_without_its_output_is_not_done(ledger):
    summary = make_summary(ledger.folder, 0)
    (ledger.folder / 'deep/0.npz').unlink()
    with pytest.raises(InputError, match=r'deep/0\.npz cannot be written \(No such file'):
        ledger.commit(summary)
    assert ledger.missing([SHARDS[0]])


def test_a_damaged_summary_is_named(ledger):
    ledger.commit(make_summary(ledger.folder, 0))
    (path,) = ledger.folder.rglob('00000.json')
    path.write_text(path.read_text()[:-10])
    with pytest.raises(InputError, match=r'00000\.json is missing or damaged: remove it, and run'):
        list(ledger.summaries(SHARDS[:1]))


def test_the_manifest_adds_up_the_shards(ledger):
    assert not ledger.finish(SHARDS)
    for shard in SHARDS[:2]:
        ledger.commit(make_summary(ledger.folder, shard.number))
    assert not ledger.finish(SHARDS)
    assert not (ledger.folder / 'manifest.json').exists()
    failures = [('d\udcff\n.wav', 'it, is "empty"'), ('c.wav', 'no audio')]
    ledger.commit(make_summary(ledger.folder, 2345, failures))
    assert ledger.finish(SHARDS)

    text = (ledger.folder / 'manifest.json').read_text()
    manifest = json.loads(text)
    assert manifest['settings'] == {**SETTINGS, 'dtypes': ['float32', 'float16']}
    assert (manifest['input']['files'], manifest['input']['bytes']) == (2, 30)
    totals = {'files': 3, 'failures': 2, 'hours': 1.5, 'latents': 300, 'bytes': 12 + 12 + 15}
    assert {name: manifest[name] for name in totals} == totals
    assert [shard['number'] for shard in manifest['shards']] == [0, 1, 2345]
    assert [shard['failures'] for shard in manifest['shards']] == [0, 0, 2]
    for shard in manifest['shards']:
        (output,) = shard['outputs']
        content = (ledger.folder / output['name']).read_bytes()
        assert (output['bytes'], output['records']) == (len(content), shard['number'] + 1)
        assert output['sha256'] == hashlib.sha256(content).hexdigest()
    with (ledger.folder / 'failures.csv').open(newline='', encoding='utf-8') as file:
        rows = list(csv.reader(file))
    assert rows == [
        ['file', 'reason'],
        ['c.wav', 'no audio'],
        ['d\\udcff\n.wav', 'it, is "empty"'],
    ]

    assert ledger.finish(SHARDS)
    assert (ledger.folder / 'manifest.json').read_text() == text
    assert not (ledger.folder / 'warnings.csv').exists()


def test_warnings_are_in_a_table_of_their_own(ledger):
    odd = [('b.wav', 'too loud: peak 9'), ('a/1.wav', 'all samples are equal (0.0): silence')]
    for shard, warnings in zip(SHARDS, (odd[:1], odd[1:], ()), strict=True):
        summary = make_summary(ledger.folder, shard.number)
        ledger.commit(dataclasses.replace(summary, warnings=tuple(warnings)))
    assert [len(summary.warnings) for summary in ledger.summaries(SHARDS)] == [1, 1, 0]
    assert ledger.finish(SHARDS)
    with (ledger.folder / 'warnings.csv').open(newline='', encoding='utf-8') as file:
        assert list(csv.reader(file)) == [['file', 'reason'], *map(list, sorted(odd))]
    manifest = json.loads((ledger.folder / 'manifest.json').read_text())
    assert manifest['warnings'] == 2
    assert [shard['warnings'] for shard in manifest['shards']] == [1, 1, 0]


def test_summaries_of_before_have_no_warnings(ledger):
    summary = make_summary(ledger.folder, 0)
    ledger.commit(summary)
    path = ledger.folder / ledger.summary_name(0)
    fields = json.loads(path.read_text())
    del fields['warnings']
    path.write_text(json.dumps(fields))
    assert list(ledger.summaries(SHARDS[:1])) == [summary]


def test_only_shards_with_failures_are_done_again_and_only_if_asked(ledger):
    ledger.commit(make_summary(ledger.folder, 0))
    ledger.commit(make_summary(ledger.folder, 1, [('c.wav', 'no audio')]))
    ledger.commit(make_summary(ledger.folder, 2345))
    ledger.claim(SETTINGS, ITEMS)
    assert ledger.finish(SHARDS)
    assert ledger.forget_failures(SHARDS[2:]) == 0
    assert (ledger.folder / 'manifest.json').exists()
    assert ledger.forget_failures(SHARDS) == 1
    assert ledger.missing(SHARDS) == (SHARDS[1],)
    assert not (ledger.folder / 'manifest.json').exists()
    assert not (ledger.folder / 'failures.csv').exists()
    assert ledger.forget_failures(SHARDS) == 0
    assert (ledger.folder / 'deep/1.npz').exists()


def test_the_same_job_claims_again_whatever_the_order(ledger):
    before = (ledger.folder / 'job.json').read_text()
    ledger.commit(make_summary(ledger.folder, 0))
    ledger.claim(dict(reversed(SETTINGS.items())), ITEMS[::-1])
    assert (ledger.folder / 'job.json').read_text() == before
    assert (ledger.folder / 'items.tsv').read_text() == '10\ta/1.wav\n20\tb.wav\n'


@pytest.mark.parametrize(
    ('settings', 'items', 'changes'),
    [
        ({**SETTINGS, 'overlap': 8}, ITEMS, r'settings\.overlap: 4 -> 8'),
        ({**SETTINGS, 'new': 'x'}, ITEMS, r"settings\.new: None -> 'x'"),
        (SETTINGS, ITEMS[:1], r"input: 1 removed, 'b\.wav' first"),
        (SETTINGS, [*ITEMS, Item('aa', '', 1)], "input: 1 added, 'aa' first"),
        (SETTINGS, [ITEMS[0], Item('b.wav', '', 3)], r"input: 1 changed, 'b\.wav' first"),
        (
            {'model': 'x'},
            [Item('b.wav', '', 3), Item('z', '', 0), Item('y', '', 0)],
            r"settings\.model: 'abc' -> 'x'; settings.*; input: 2 added, 1 removed, 1 changed, "
            r"'a/1\.wav' first",
        ),
    ],
)
def test_what_has_changed_is_named(ledger, settings, items, changes):
    with pytest.raises(InputError, match=rf'out was begun otherwise \(.*{changes}\): choose'):
        ledger.claim(settings, items)
    ledger.claim(SETTINGS, ITEMS)


def test_where_files_have_moved_they_are_the_same(ledger):
    ledger.claim(
        SETTINGS, [Item(item.source, f'/elsewhere/{item.source}', item.bytes) for item in ITEMS]
    )


def test_names_of_any_bytes_are_told_apart(tmp_path):
    names = ['a\tb', 'a\nb', 'a\\u000ab', 'a\udcffb', 'a\\udcffb', 'a\u2028b', 'é']
    items = [Item(name, name, 1) for name in names]
    ledger = Ledger(tmp_path)
    ledger.claim({}, items)
    ledger.claim({}, items)
    assert len((tmp_path / 'items.tsv').read_text(encoding='utf-8').splitlines()) == len(names)
    for place, item in enumerate(items):
        with pytest.raises(InputError, match=r'input: 1 removed, .* first\): choose'):
            ledger.claim({}, items[:place] + items[place + 1 :])
        changed = Item(item.source, item.path, 2)
        with pytest.raises(InputError, match=r'input: 1 changed, .* first\): choose'):
            ledger.claim({}, [*items[:place], changed, *items[place + 1 :]])


def test_settings_that_are_not_finite_are_json(tmp_path):
    """As `--shard_megabytes=inf`, for one shard, is."""
    ledger = Ledger(tmp_path)
    for _ in range(2):
        ledger.claim({'shard_megabytes': math.inf}, ITEMS)
    job = json.loads((tmp_path / 'job.json').read_text(), parse_constant=pytest.fail)
    assert job['settings'] == {'shard_megabytes': None}


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / 'song.wav').touch()
    with pytest.raises(InputError, match=r"contains other files \('song\.wav'\): choose a new or"):
        Ledger(tmp_path).claim(SETTINGS, ITEMS)
    assert os.listdir(tmp_path) == ['song.wav']


@pytest.mark.parametrize('content', ['', '{', '[]', '{"settings": {}}', '{"settings": 3}'])
def test_a_damaged_record_of_the_job_is_named(ledger, content):
    (ledger.folder / 'job.json').write_text(content)
    with pytest.raises(InputError, match=r'job\.json is damaged: remove .* and begin again'):
        ledger.claim(SETTINGS, ITEMS)


@pytest.mark.parametrize('content', [None, '', 'x', '10\ta/1.wav\n20\tb.wav\n'])
def test_a_change_is_refused_even_where_it_cannot_be_named(ledger, content):
    path = ledger.folder / 'items.tsv'
    path.unlink()
    if content is not None:
        path.write_text(content)
    job = json.loads((ledger.folder / 'job.json').read_text())
    job['input']['sha256'] = '0'
    (ledger.folder / 'job.json').write_text(json.dumps(job))
    with pytest.raises(InputError, match=r'was begun otherwise \(input: '):
        ledger.claim(SETTINGS, ITEMS)


def _claim_at_once(barrier, folder, number, answers):
    items = [Item(f'{place}.wav', '', place) for place in range(300)]
    barrier.wait()
    try:
        Ledger(folder).claim({'dtype': number % 2}, items)
        answers.put(number % 2)
    except InputError as error:
        answers.put(str(error).partition('(')[2].partition(':')[0])


def test_of_those_who_claim_at_once_with_other_settings_one_kind_wins(tmp_path):
    context = multiprocessing.get_context('spawn')
    for attempt in range(3):
        barrier, answers = context.Barrier(6), context.Queue()
        folder = tmp_path / str(attempt)
        processes = [
            context.Process(target=_claim_at_once, args=(barrier, folder, number, answers))
            for number in range(6)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * 6
        told = [answers.get() for _ in range(6)]
        assert told.count('settings.dtype') == 3
        assert len(set(told)) == 2
        assert sorted(os.listdir(folder)) == ['items.tsv', 'job.json']

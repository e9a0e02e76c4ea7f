"""mirdata's own readers, on sets of a few rendered notes in the layout of the real ones."""

import builtins
import csv
import json
import logging

import numpy as np
import pytest
import soundfile

from benchmarks.notes import render_note
from m2l_jax.interface.errors import InputError
from m2l_jax.probing.data_sets import read_examples

RATE = 44_100
NOTES = {'BTb': ('Brass', 'Bass Tuba', 'organ'), 'Fl': ('Winds', 'Flute', 'flute')}
COLUMNS = (
    *('Path', 'Fold', 'Family', 'Instrument (abbr.)', 'Instrument (in full)'),
    *('Technique (abbr.)', 'Technique (in full)', 'Pitch', 'Pitch ID', 'Dynamics'),
    *('Dynamics ID', 'Instance ID', 'String ID (if applicable)', 'Needed digital retuning'),
)

pytest.importorskip('mirdata', reason="mirdata is not there: pip install 'm2l-jax[probe]'")


def write_audio(path, pitch=60, instrument='organ'):
    path.parent.mkdir(parents=True, exist_ok=True)
    note = render_note(instrument, pitch, 0.3, np.random.default_rng(pitch))
    soundfile.write(path, note, RATE)


def write_index(folder, name, tracks):
    text = json.dumps({'version': '', 'tracks': tracks})
    (folder / name).write_text(text)


def write_tinysol(folder):
    """Two instruments, two pitches, five folds."""
    tracks, rows = {}, []
    for abbreviation, (family, name, timbre) in NOTES.items():
        for pitch_name, pitch in (('C4', 60), ('A#3', 58)):
            for instance, dynamics in enumerate(('pp', 'mf', 'ff', 'f', 'p')):
                track = f'{abbreviation}-ord-{pitch_name}-{dynamics}-N-N'
                path = f'{family}/{name.replace(" ", "_")}/ordinario/{track}.wav'
                write_audio(folder / 'audio' / path, pitch, timbre)
                tracks[track] = {'audio': [f'audio/{path}', None]}
                rows.append(
                    (
                        *(path, instance, family, abbreviation, name, 'ord', 'Ordinario'),
                        *(pitch_name, pitch, dynamics, instance, 0, '', 'FALSE'),
                    )
                )
    (folder / 'annotation').mkdir()
    with open(folder / 'annotation' / 'TinySOL_metadata.csv', 'w', newline='') as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    write_index(folder, 'tinysol_index_6.0.json', tracks)
    return folder


@pytest.fixture(scope='module')
def tinysol(tmp_path_factory):
    return write_tinysol(tmp_path_factory.mktemp('tinysol'))


def test_tinysol_has_instruments_pitches_and_folds(tinysol):
    tasks = {'instrument': '', 'pitch': '', 'pitch_class': '', 'classification': 'family'}
    examples = {each.name: each for each in read_examples('mirdata:tinysol', tasks, tinysol)}
    assert len(examples) == 20
    one = examples['BTb-ord-A#3-mf-N-N']
    assert one.labels == {
        'instrument': ('Bass Tuba',),
        'pitch': ('A#3',),
        'pitch_class': ('A#',),
        'classification': ('Brass',),
    }
    assert [examples[f'Fl-ord-C4-{each}-N-N'].split for each in ('pp', 'mf', 'p')] == [
        '0',
        '1',
        '4',
    ]
    waveform = one.read(RATE)
    path = tinysol / 'audio/Brass/Bass_Tuba/ordinario/BTb-ord-A#3-mf-N-N.wav'
    np.testing.assert_allclose(waveform[0], soundfile.read(path)[0], atol=1e-6)


def test_a_missing_file_is_named_when_it_is_read(tmp_path):
    write_tinysol(tmp_path)
    (tmp_path / 'audio/Brass/Bass_Tuba/ordinario/BTb-ord-C4-pp-N-N.wav').unlink()
    examples = read_examples('mirdata:tinysol', {'pitch': ''}, tmp_path)
    with pytest.raises(InputError, match=r'BTb-ord-C4-pp-N-N\.wav'):
        examples[0].read(RATE)


def test_keys_of_beatport(tmp_path):
    tracks = {}
    for number, key in enumerate(('Db minor', 'C major | A minor', 'Unknown', 'F# major')):
        title = f'100066 Song {number}'
        write_audio(tmp_path / 'audio' / f'{title}.mp3.wav')
        (tmp_path / 'audio' / f'{title}.mp3.wav').rename(tmp_path / 'audio' / f'{title}.mp3')
        (tmp_path / 'keys').mkdir(exist_ok=True)
        (tmp_path / 'keys' / f'{title}.txt').write_text(key + '\n')
        tracks[str(number)] = {
            'audio': [f'audio/{title}.mp3', None],
            'key': [f'keys/{title}.txt', None],
            'meta': [None, None],
        }
    write_index(tmp_path, 'beatport_key_index_1.0.0.json', tracks)
    examples = read_examples('mirdata:beatport_key', {'key': ''}, tmp_path)
    labels = [each.labels['key'] for each in examples]
    assert labels == [('C# minor',), ('C major', 'A minor'), (), ('F# major',)]
    assert {each.split for each in examples} == {''}
    assert examples[0].read(RATE).shape == (1, round(0.3 * RATE))


def test_tags_and_splits_of_jamendo(tmp_path):
    tracks, lines = {}, ['TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS']
    splits = {'train': 'track_1', 'validation': 'track_2', 'test': 'track_3'}
    for number, track in enumerate(splits.values()):
        write_audio(tmp_path / 'audios' / f'{number}.wav')
        tracks[track] = {'audio': [f'audios/{number}.wav', None]}
        tags = '\t'.join(('mood/theme---happy', 'mood/theme---calm')[: number + 1])
        lines.append(f'{track}\tartist_{number}\talbum_1\t{number}.mp3\t9.0\t{tags}')
    for number in range(5):
        folder = tmp_path / 'data' / 'splits' / f'split-{number}'
        folder.mkdir(parents=True)
        for split, track in splits.items():
            text = f'TRACK_ID\tARTIST_ID\n{track}\tartist\n'
            (folder / f'autotagging_moodtheme-{split}.tsv').write_text(text)
    (tmp_path / 'data' / 'autotagging_moodtheme.tsv').write_text('\n'.join(lines) + '\n')
    write_index(tmp_path, 'mtg_jamendo_autotagging_moodtheme_index_1.0.json', tracks)
    name = 'mirdata:mtg_jamendo_autotagging_moodtheme'
    examples = read_examples(name, {'tagging': ''}, tmp_path)
    assert [each.split for each in examples] == list(splits)
    assert [each.labels['tagging'] for each in examples] == [
        ('happy',),
        *[('calm', 'happy')] * 2,
    ]


def test_instruments_of_medley_solos(tmp_path):
    tracks, lines = {}, ['subset,instrument,instrument_id,song_id,uuid4']
    for number, subset in enumerate(('training', 'validation', 'test')):
        write_audio(tmp_path / 'audio' / f'{number}.wav')
        tracks[f'id{number}'] = {'audio': [f'audio/{number}.wav', None]}
        lines.append(f'{subset},violin,{number},{number},id{number}')
    (tmp_path / 'annotation').mkdir()
    path = tmp_path / 'annotation' / 'Medley-solos-DB_metadata.csv'
    path.write_text('\n'.join(lines) + '\n')
    write_index(tmp_path, 'medley_solos_db_index_1.2.json', tracks)
    examples = read_examples('mirdata:medley_solos_db', {'instrument': ''}, tmp_path)
    assert [(each.split, each.labels['instrument']) for each in examples] == [
        (split, ('violin',)) for split in ('train', 'validation', 'test')
    ]


def test_genres_of_gtzan_and_keys_of_giantsteps(tmp_path):
    for name in ('blues.00000', 'hiphop.00001'):
        write_audio(tmp_path / 'audio' / f'{name}.wav')
    nothing = {'beats': [None, None], 'tempo': [None, None]}
    tracks = {
        name: {'audio': [f'audio/{name}.wav', None], **nothing}
        for name in ('blues.00000', 'hiphop.00001')
    }
    write_index(tmp_path, 'gtzan_genre_index_1.0.json', tracks)
    write_index(tmp_path, 'gtzan_genre_1.0_mini_index.json', dict([next(iter(tracks.items()))]))
    examples = read_examples('mirdata:gtzan_genre', {'genre': ''}, tmp_path)
    assert [each.labels['genre'] for each in examples] == [('blues',), ('hip-hop',)]
    assert len(read_examples('mirdata:gtzan_genre/mini', {'genre': ''}, tmp_path)) == 1

    (tmp_path / 'a.key').write_text('Eb minor\n')
    files = {'audio': ['audio/blues.00000.wav', None], 'key': ['a.key', None], 'meta': [None, None]}
    write_index(tmp_path, 'giantsteps_key_index_+.json', {'0': files})
    (example,) = read_examples('mirdata:giantsteps_key', {'key': ''}, tmp_path)
    assert example.labels['key'] == ('D# minor',)


def refused(data, message, home, tasks=None):
    with pytest.raises(InputError, match=message) as raised:
        read_examples(data, tasks or {'instrument': ''}, home)
    assert '\n' not in str(raised.value)


def test_sets_that_cannot_be_read_are_refused_in_a_line(tmp_path, tinysol):
    refused('mirdata:tinysoul', "no data set 'tinysoul'; is it tinysol", tinysol)
    refused('mirdata:tinysol/9', r'mirdata:tinysol/9: Invalid version 9', tinysol)
    refused(
        'mirdata:tinysol',
        r'nowhere does not exist: download once, in Python, by `import mirdata; mirdata\.'
        r"initialize\('tinysol', data_home='.*nowhere'\)\.download\(\)`",
        tmp_path / 'nowhere',
    )
    refused(
        'mirdata:tinysol',
        r"tinysol, tinysol_index_6\.0\.json, is missing: .*\.download\(\['index'\]\)`, or put it",
        tmp_path,
    )
    refused('mirdata:tinysol', r'no label that is known for genre', tinysol, {'genre': ''})
    refused(
        'mirdata:tinysol', r"no attribute 'colour', only .*family", tinysol, {'pitch': 'colour'}
    )
    (tmp_path / 'tinysol_index_6.0.json').write_text(
        (tinysol / 'tinysol_index_6.0.json').read_text()
    )
    refused('mirdata:tinysol', r'lacks annotations \(.*\): download once', tmp_path)
    (tmp_path / 'tinysol_index_6.0.json').write_text('{"tracks":')
    refused('mirdata:tinysol', r'cannot be read by mirdata \(JSONDecodeError: ', tmp_path)


def test_without_mirdata_the_extra_is_named(monkeypatch, tinysol):
    real = builtins.__import__

    def missing(name, *arguments, **options):
        if name == 'mirdata':
            raise ModuleNotFoundError("No module named 'mirdata'", name='mirdata')
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, '__import__', missing)
    refused('mirdata:tinysol', r"needs mirdata: pip install 'm2l-jax\[probe\]'", tinysol)


def test_mirdata_does_not_set_up_logging(tinysol):
    before = list(logging.root.handlers)
    read_examples('mirdata:tinysol', {'pitch': ''}, tinysol, limit=1)
    assert logging.root.handlers == before

"""Datasets of a few rendered notes, with the features of NSynth and GTZAN, written by TFDS."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from benchmarks.notes import RATE, render_note
from m2l_jax.audio.levels import to_int16
from m2l_jax.interface.errors import InputError
from m2l_jax.probing.data_sets import read_examples

FAMILIES = ('bass', 'brass', 'flute')
GENRES = ('blues', 'classical', 'country')
NSYNTH = tfds.features.FeaturesDict(
    {
        'id': tfds.features.Text(),
        'audio': tfds.features.Audio(shape=(None,), dtype=np.float32, sample_rate=16_000),
        'pitch': tfds.features.ClassLabel(num_classes=128),
        'velocity': tfds.features.ClassLabel(num_classes=128),
        'instrument': {
            'label': tfds.features.ClassLabel(names=['bass_000', 'flute_001']),
            'family': tfds.features.ClassLabel(names=FAMILIES),
            'source': tfds.features.ClassLabel(names=['acoustic', 'electronic', 'synthetic']),
        },
        'qualities': {'bright': np.bool_, 'dark': np.bool_},
    }
)
GTZAN = tfds.features.FeaturesDict(
    {
        'audio': tfds.features.Audio(sample_rate=22_050),
        'label': tfds.features.ClassLabel(names=GENRES),
        'audio/filename': tfds.features.Text(),
    }
)


def note(pitch, rate):
    return render_note('flute', pitch, 0.2, np.random.default_rng(pitch))[:: RATE // rate]


def nsynth_record(pitch):
    return {
        'id': f'flute-{pitch}',
        'audio': note(pitch, 16_000).astype(np.float32),
        'pitch': pitch,
        'velocity': 100,
        'instrument': {'label': 1, 'family': 2 if pitch % 2 else 0, 'source': 0},
        'qualities': {'bright': True, 'dark': False},
    }


def gtzan_record(number):
    audio = to_int16(note(60 + number, 22_050)).astype(np.int64)
    return {'audio': audio, 'label': number % 3, 'audio/filename': f'blues.{number}.wav'}


def write(folder, dataset, features, splits):
    """Has TFDS write records by split into a folder that it can open, and returns the folder."""

    class Rendered(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = dataset
        VERSION = tfds.core.Version('1.0.0')

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager):
            return {split: enumerate(records) for split, records in splits.items()}

        def _generate_examples(self):
            raise AssertionError

    builder = Rendered(data_dir=folder, file_format='array_record')
    builder.download_and_prepare()
    return str(builder.data_path)


@pytest.fixture(scope='module')
def nsynth(tmp_path_factory):
    splits = {'train': (60, 61, 62), 'valid': (63,), 'test': (64, 65)}
    records = {split: [nsynth_record(pitch) for pitch in own] for split, own in splits.items()}
    return write(tmp_path_factory.mktemp('nsynth'), 'nsynth', NSYNTH, records)


@pytest.fixture(scope='module')
def gtzan(tmp_path_factory):
    records = {'train': [gtzan_record(number) for number in range(4)]}
    return write(tmp_path_factory.mktemp('gtzan'), 'gtzan', GTZAN, records)


def test_splits_pitches_and_families_of_nsynth(nsynth):
    tasks = {'pitch': '', 'instrument': '', 'pitch_class': '', 'classification': 'qualities/bright'}
    examples = read_examples(nsynth, tasks)
    by_pitch = {each.labels['pitch'][0]: each for each in examples}
    assert {pitch: each.split for pitch, each in by_pitch.items()} == {
        **dict.fromkeys(('60', '61', '62'), 'train'),
        '63': 'validation',
        **dict.fromkeys(('64', '65'), 'test'),
    }
    assert by_pitch['61'].labels == {
        'pitch': ('61',),
        'instrument': ('flute',),
        'pitch_class': ('C#',),
        'classification': ('True',),
    }
    waveform = by_pitch['61'].read(16_000)
    np.testing.assert_array_equal(waveform[0], note(61, 16_000).astype(np.float32))


def test_genres_of_gtzan_come_without_a_split(gtzan):
    examples = read_examples(gtzan, {'genre': ''})
    assert sorted(each.labels['genre'][0] for each in examples) == ['blues', *GENRES]
    assert {each.split for each in examples} == {''}
    assert examples[0].read(RATE).shape == (1, 2 * len(note(60, 22_050)))
    (name,) = read_examples(gtzan, {'classification': 'audio/filename'}, limit=1)
    assert name.labels['classification'][0].startswith('blues.')


def test_one_split_that_is_named_is_dealt_anew(nsynth):
    examples = read_examples(f'{nsynth}[train]', {'pitch': ''})
    assert [each.split for each in examples] == ['', '', '']


def test_datasets_that_cannot_be_used_are_refused(nsynth, gtzan, tmp_path):
    with pytest.raises(InputError, match=r'no feature for genre, only .*pitch.*: name one, --task'):
        read_examples(nsynth, {'genre': ''})
    with pytest.raises(InputError, match="no feature 'instrument/colour', only"):
        read_examples(nsynth, {'instrument': 'instrument/colour'})
    with pytest.raises(InputError, match='tfds:no_such_set is no dataset that TFDS can open'):
        read_examples('tfds:no_such_set', {'genre': ''})
    records = [gtzan_record(0)]
    odd = write(tmp_path, 'odd', GTZAN, {'train': records, 'other': records})
    with pytest.raises(
        InputError, match=r'has the splits other, train, without .*: pass .*\[SPLIT\]'
    ):
        read_examples(odd, {'genre': ''})

import csv
import json

import jax
import numpy as np
import pytest

from benchmarks.notes import INSTRUMENTS, render
from m2l_jax.interface.devices import compute_once
from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.probing.report import FREQUENCIES, describe_report, probe
from m2l_jax.torch_weights.conversion import save_torch_model
from tests.commands import tiny
from tests.conftest import largest_file

SYSTEMS = [
    *('latents', 'features', 'latents, untrained', 'features, untrained', 'mel spectrogram'),
    FREQUENCIES,
]


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp('model') / 'tiny.safetensors'
    model = Music2Latent(tiny.MODEL)
    save_torch_model(path, tiny.MODEL, compute_once(lambda: model.init_params(jax.random.key(3))))
    return str(path)


@pytest.fixture(scope='module')
def notes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('notes')
    return render(folder, instruments=3, pitches=5, variants=3, seconds=0.1)


@pytest.fixture(scope='module')
def report(checkpoint, notes, tmp_path_factory):
    output = tmp_path_factory.mktemp('out') / 'probe'
    options = {'tasks': ['instrument', 'pitch'], 'seeds': 2}
    return output, probe(checkpoint, str(notes), output, **options)


def test_every_representation_is_scored_in_every_task(report):
    output, found = report
    assert json.loads((output / 'report.json').read_text())['clips'] == 45
    assert (found['left_out'], found['seeds'], found['fold']) == ({}, [0, 1], 0)
    assert list(found['tasks']) == ['instrument', 'pitch']
    for name, classes in (('instrument', 3), ('pitch', 5)):
        task = found['tasks'][name]
        assert len(task['classes']) == classes
        assert task['splits'] == {'train': 27, 'validation': 9, 'test': 9} or name == 'pitch'
        assert list(task['systems']) == SYSTEMS
        for system, figures in task['systems'].items():
            accuracy = figures['accuracy']
            assert len(accuracy['seeds']) == (1 if system == FREQUENCIES else 2)
            assert np.isclose(accuracy['mean'], np.mean(accuracy['seeds']))
            low, high = accuracy['interval']
            assert 0 <= low <= accuracy['mean'] + 1e-9
            assert accuracy['mean'] - 1e-9 <= high <= 1
    systems = found['tasks']['instrument']['systems']
    assert systems['latents']['numbers'] == 2 * tiny.MODEL.latent_channels
    assert systems['mel spectrogram']['numbers'] == 160
    # Three instruments of like many notes: chance is a third, spectra tell them apart.
    assert systems[FREQUENCIES]['accuracy']['mean'] == pytest.approx(1 / 3)
    assert systems['mel spectrogram']['accuracy']['mean'] > 0.7


def test_predictions_are_those_of_the_scores(report):
    output, found = report
    with open(output / 'predictions.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ['task', 'clip', 'labels', *SYSTEMS]
    for name, task in found['tasks'].items():
        own = [row for row in rows if row['task'] == name]
        assert len(own) == task['splits']['test']
        for system, figures in task['systems'].items():
            right = np.mean([row[system] == row['labels'] for row in own])
            assert np.isclose(right, figures['accuracy']['seeds'][0])
    assert {row['labels'] for row in rows if row['task'] == 'instrument'} == set(
        list(INSTRUMENTS)[:3]
    )


def test_a_table_is_printed_for_each_task(report):
    lines = describe_report(report[1]).splitlines()
    assert lines[0].split('  ')[0] == 'instrument: 9 test clips, 3 classes'
    assert lines[0].endswith('numbers              accuracy')
    assert [line.split('  ')[0] for line in lines[1:7]] == SYSTEMS
    assert 'trained on 27 clips, chosen on 9' in lines
    assert 'linear probe, mean_std over time, seed 0, 1' in lines


def test_the_same_command_gives_the_same_figures(report, checkpoint, notes, tmp_path):
    again = probe(
        checkpoint, str(notes), tmp_path / 'again', tasks=['instrument', 'pitch'], seeds=2
    )
    assert again == report[1]


def relabel(notes, text, folder):
    """A list in another folder with a row for each of the notes, from a function of its number."""
    names = sorted(path.name for path in notes.parent.glob('*.wav'))
    rows = [f'{notes.parent / name},{text(number)}' for number, name in enumerate(names)]
    path = folder / 'list.csv'
    path.write_text('\n'.join(['path,label,split', *rows]) + '\n')
    return str(path)


def test_tags_and_keys_have_their_own_scores(notes, checkpoint, tmp_path):
    path = relabel(notes, lambda number: ('low|odd', 'high', '')[number % 3] + ',', tmp_path)
    options = {'representations': ['latents'], 'baselines': False, 'pooling': 'mean'}
    found = probe(checkpoint, path, tmp_path / 'a', tasks=['tagging'], kind='mlp', **options)
    task = found['tasks']['tagging']
    assert list(task['scores']) == ['roc_auc', 'average_precision']
    assert list(task['systems']) == ['latents', FREQUENCIES]
    assert task['systems']['latents']['numbers'] == tiny.MODEL.latent_channels
    assert task['systems'][FREQUENCIES]['roc_auc']['mean'] == 0.5
    assert task['systems'][FREQUENCIES]['average_precision']['mean'] == pytest.approx(1 / 3)

    path = relabel(notes, lambda number: ('C major', 'Am', 'x')[number % 3] + ',', tmp_path)
    found = probe(checkpoint, path, tmp_path / 'b', tasks=['key'], **options)
    task = found['tasks']['key']
    assert (list(task['scores']), task['unlabelled']) == (['mirex', 'accuracy'], 15)
    assert found['clips'] == 30  # those without a key are not read
    figures = task['systems'][FREQUENCIES]  # the relative key is worth 0.3
    assert figures['accuracy']['mean'] == 0.5
    assert figures['mirex']['mean'] == pytest.approx(0.65)
    assert 'clips without a label for key, left out: 15' in describe_report(found)


def test_what_is_left_out_is_said(notes, checkpoint, tmp_path):
    def text(number):
        split = ('train', 'validation', 'test')[number % 3]
        if number in (3, 6, 9):
            return f'{("a|b", "", "b|a")[number // 3 - 1]},{split}'
        return f'z,{split}' if number in (2, 5, 40) else f'{"ab"[number % 2]},{split}'

    path = relabel(notes, text, tmp_path)
    with open(path, 'a') as file:
        file.write('gone.wav,a,train\n')
    options = {'representations': ['latents'], 'baselines': False}
    found = probe(checkpoint, path, tmp_path / 'out', tasks=['genre'], **options)
    assert found['tasks']['genre']['unseen'] == {'z': 3}
    assert found['tasks']['genre']['splits'] == {'train': 12, 'validation': 14, 'test': 13}
    lines = describe_report(found).splitlines()
    assert found['tasks']['genre']['unlabelled'] == 1
    assert found['tasks']['genre']['several_labels'] == {'a|b': 1, 'b|a': 1}
    assert 'clips without a label for genre, left out: 1' in lines
    assert 'clips with several labels (a|b, …), left out since genre takes one: 2' in lines
    assert 'labels that training lacks, left out with so many clips: z (3)' in lines
    assert lines[-1].startswith('1 clips left out: ')
    assert 'gone.wav' in lines[-1]


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (lambda number: 'a,', "one class only, 'a'"),
        (lambda number: f'{number % 2},train', "no clip is in the split 'test'"),
        (
            lambda number: 'a|b,',
            "genre takes one label a clip, and no clip has just one, .*'a\\|b'",
        ),
        (lambda number: f',{number}', 'no clip has a label for genre'),
    ],
)
def test_lists_with_nothing_to_learn_are_refused_before_the_model_is_read(
    notes, tmp_path, text, message
):
    path = relabel(notes, text, tmp_path)
    with pytest.raises(InputError, match=message):
        probe('/nowhere', path, tmp_path / 'out', tasks=['genre'])
    assert not (tmp_path / 'out').exists()


def test_unknown_features_are_refused(notes, tmp_path):
    for names in (['latents', 'colours'], []):
        with pytest.raises(InputError, match=r'--features=.*: choose of latents, features'):
            probe('/nowhere', str(notes), tmp_path, tasks=['pitch'], representations=names)


def test_seeds_that_jax_does_not_take_are_refused(tmp_path):
    message = '--seed=4294967295 --seeds=2: the last seed, 4294967296, is above 4294967295'
    with pytest.raises(InputError, match=message):
        probe('/nowhere', '/no.csv', tmp_path, tasks=['pitch'], seed=4294967295, seeds=2)
    with pytest.raises(InputError, match=r'/no\.csv cannot be read'):
        probe('/nowhere', '/no.csv', tmp_path, tasks=['pitch'], seed=4294967294, seeds=2)


def test_a_full_disk_is_named(notes, checkpoint, tmp_path):
    options = {'tasks': ['instrument'], 'representations': ['latents'], 'baselines': False}
    with largest_file(100), pytest.raises(InputError, match=r'report\.json cannot be written'):
        probe(checkpoint, str(notes), tmp_path / 'out', **options)
    assert not list(tmp_path.rglob('*.partial'))

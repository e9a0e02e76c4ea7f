"""Each notebook runs from top to bottom, with a tiny model and short settings."""

import ast
import functools
import itertools
import json
import pathlib
import re
import tempfile

import jax
import nbformat
import numpy as np
import pytest
import soundfile
from nbclient import NotebookClient
from traitlets.config import Config

from m2l_jax.interface.devices import compute_once
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.torch_weights.conversion import save_torch_model
from tests.commands import tiny
from tests.conftest import make_music, on_one_device
from tests.torch_weights.test_conversion import random_params
from tests.waiting import HANG_SECONDS
from tools import goldens

REPOSITORY = pathlib.Path(__file__).parents[2]
NOTEBOOKS = sorted((REPOSITORY / 'notebooks').glob('*.ipynb'))
MOST_BYTES = 24_000  # without outputs

CONFIG = """
import dataclasses

from ml_collections import ConfigDict

from m2l_jax.configs import demo
from tests.commands import tiny


def get_config():
    config = demo.get_config()
    config.model = ConfigDict(dataclasses.asdict(tiny.MODEL))
    config.optimizer.warmup_steps = 1
    return config
"""


def read(path):
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def parameters_cell(notebook):
    return next(cell for cell in notebook.cells if 'parameters' in cell.metadata.get('tags', ()))


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp('model') / 'model.safetensors'
    initial = compute_once(lambda: Music2Latent(tiny.MODEL).init_params(jax.random.key(0)))
    # Layers that begin at zero would give latents that are all zero.
    params = jax.tree.map(lambda own, drawn: own + 0.1 * drawn, initial, random_params(tiny.MODEL))
    save_torch_model(path, tiny.MODEL, params)
    return path


@pytest.fixture(scope='module')
def loud(tmp_path_factory):
    """A stereo file whose samples exceed full scale, as those of many MP3s do."""
    path = tmp_path_factory.mktemp('loud') / 'loud.wav'
    sound = np.clip(8 * make_music(3, channels=2, seed=3), -1.2, 1.2)
    soundfile.write(path, sound.T, 44_100, subtype='FLOAT')
    return path


@pytest.fixture
def execute(tmp_path, monkeypatch):
    # Sockets are files, which no other process can take first; the system limits their paths.
    with tempfile.TemporaryDirectory(prefix='m2l') as sockets:
        monkeypatch.setenv('JUPYTER_RUNTIME_DIR', sockets)
        monkeypatch.setenv('IPYTHONDIR', str(tmp_path / 'ipython'))
        yield functools.partial(run_notebook, tmp_path / 'work', sockets)


def run_notebook(folder, sockets, name, checks, **values):
    """Runs a notebook in a folder with other parameters, and `checks` as its last cell."""
    notebook = read(REPOSITORY / 'notebooks' / f'{name}.ipynb')
    place = notebook.cells.index(parameters_cell(notebook))
    assigned = '\n'.join(f'{key} = {value!r}' for key, value in values.items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(assigned))
    notebook.cells.append(nbformat.v4.new_code_cell(checks))
    folder.mkdir()
    NotebookClient(
        notebook,
        timeout=HANG_SECONDS,
        resources={'metadata': {'path': str(folder)}},
        config=Config({'KernelManager': {'transport': 'ipc', 'ip': f'{sockets}/kernel'}}),
    ).execute(env={**on_one_device(), 'PYTHONPATH': str(REPOSITORY)})
    outputs = list(itertools.chain(*(cell.get('outputs', ()) for cell in notebook.cells)))
    told = [each.text for each in outputs if each.get('name') == 'stderr' and each.text.strip()]
    assert not [text for text in told if not text.startswith('\r')]  # but for bars
    return outputs


def count(outputs, kind):
    """Counts the outputs with data of a kind."""
    return sum(kind in output.get('data', {}) for output in outputs)


def printed(outputs):
    return ''.join(output.text for output in outputs if output.get('name') == 'stdout')


def test_reconstruct_and_listen(execute, checkpoint, loud):
    checks = """
assert original.shape == (2, 44_100) and original.max() > 1
assert latents.shape == (2, 5, 345) and latents.std() > 0
assert decoded.shape == original.shape and np.abs(decoded).max() <= 1
assert np.array_equal(versions[0], decoded) and np.array_equal(by_steps[1], decoded)
assert not np.array_equal(versions[0], versions[1])
assert set(figures) == {1, 2} and figures[1]['mel'] > 0
"""
    outputs = execute(
        'reconstruct_and_listen',
        checks,
        checkpoint=str(checkpoint),
        audio=str(loud),
        start=0.5,
        seconds=1.0,
        seeds=(0, 1),
        numbers_of_steps=(1, 2),
    )
    assert count(outputs, 'image/png') == 3
    assert count(outputs, 'text/html') == 1 + 2 + 2 + 2  # players
    assert 'latents (2, 5, 345): 3,450 numbers' in printed(outputs)


def test_train_on_your_music(execute, checkpoint, music, loud, tmp_path):
    (tmp_path / 'config.py').write_text(CONFIG)
    checks = """
assert [path.name for path in files] == ['mono.wav', 'stereo.flac']
assert list(losses) == [1, 2, 3] and all(np.isfinite(list(losses.values())))
assert pathlib.Path('run', 'checkpoints', '3').is_dir()
assert not np.array_equal(heard_before['held out'], heard_after['held out'])
assert heard_after['held out'].shape == originals['held out'].shape == (1, 22_050)
"""
    outputs = execute(
        'train_on_your_music',
        checks,
        music=str(music),
        held_out=str(loud),
        checkpoint=str(checkpoint),
        config=str(tmp_path / 'config.py'),
        steps=3,
        crop_frames=8,
        seconds=0.5,
    )
    assert count(outputs, 'image/png') == 1
    assert count(outputs, 'text/html') == 2 * 2 + 2 * 2
    assert 'step 3/3' in printed(outputs)


def test_latents_as_features(execute, checkpoint):
    checks = """
assert len(notes) == 5 * 3 * 4 and averages.shape == (60, 5)
assert set(report['tasks']) == {'instrument', 'pitch'}
systems_of_pitch = report['tasks']['pitch']['systems']
assert set(systems_of_pitch) == {
    'latents', 'latents, untrained', 'mel spectrogram', 'no features'
}
assert systems_of_pitch['mel spectrogram']['accuracy']['mean'] > 0.5
assert len(predictions) == sum(task['splits']['test'] for task in report['tasks'].values())
"""
    outputs = execute(
        'latents_as_features',
        checks,
        checkpoint=str(checkpoint),
        pitches=3,
        variants=4,
        seconds=0.2,
        seeds=1,
    )
    assert count(outputs, 'image/png') == 2
    assert count(outputs, 'text/html') == 5
    assert 'instrument: 12 test clips, 5 classes' in printed(outputs)


def test_interpolate_and_edit_latents(execute, checkpoint, music, loud):
    checks = """
assert a.shape == b.shape == (1, 5, frames) and samples == frames * 128
assert plain_a.shape == faded_audio.shape == faded_sound.shape == (1, samples)
assert np.array_equal(sounds[0.0], plain_a) and np.array_equal(sounds[1.0], plain_b)
assert np.array_equal(reordered[..., :size], a[..., order[0] * size : (order[0] + 1) * size])
assert np.array_equal(reversed_latents[..., 0], a[..., -1])
assert np.array_equal(faded[..., 0], a[..., 0]) and np.array_equal(faded[..., -1], b[..., -1])
assert np.array_equal(splice[..., : begin], a[..., : begin]) and not zeros[..., begin].any()
assert len(errors) == 12 and all(np.isfinite(list(errors.values())))
"""
    outputs = execute(
        'interpolate_and_edit_latents',
        checks,
        checkpoint=str(checkpoint),
        first=str(music / 'mono.wav'),
        second=str(loud),
        seconds=2.0,
    )
    assert count(outputs, 'image/png') == 5
    assert printed(outputs).count(' times the usual one') == 2


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_clean(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.stat().st_size < MOST_BYTES
    code = [cell for cell in notebook.cells if cell.cell_type == 'code']
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert notebook.cells[0].source.startswith('# ')
    assert code[0].id == 'install'
    assert 'm2l_jax' in code[0].source
    assert '%pip install' in code[0].source
    assert code[1] is parameters_cell(notebook)


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_uses_public_names_only(path):
    for cell in read(path).cells[2:]:
        if cell.cell_type != 'code' or cell.id == 'install':
            continue
        for node in ast.walk(ast.parse(cell.source)):
            name = getattr(node, 'attr', None) or getattr(node, 'module', None) or ''
            assert not any(part.startswith('_') for part in name.split('.')), name


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_commands_that_a_notebook_names_have_their_flags(path):
    known = json.loads(goldens.GOLDENS.read_text())['flags']
    for cell in read(path).cells:
        for command, arguments in re.findall(r'python -m m2l_jax\.(\w+)([^\n`]*)', cell.source):
            assert set(re.findall(r'--(\w+)', arguments)) <= set(known[command]), command


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_links_of_a_notebook_lead_somewhere(path):
    text = '\n'.join(cell.source for cell in read(path).cells if cell.cell_type == 'markdown')
    for target in re.findall(r'\]\(([^)\s]+)\)', text):
        assert target.startswith('https://') or (path.parent / target).exists(), target


def test_every_notebook_is_executed():
    tests = {name.removeprefix('test_') for name in globals() if name.startswith('test_')}
    assert NOTEBOOKS
    assert {path.stem for path in NOTEBOOKS} <= tests

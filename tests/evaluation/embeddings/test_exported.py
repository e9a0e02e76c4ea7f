import sys

import numpy as np
import pytest

from m2l_jax.evaluation.embeddings.exported import ExportedModel
from m2l_jax.interface.errors import InputError
from tests.evaluation.embeddings.tiny_models import (
    save_onnx,
    save_saved_model,
    save_torchscript,
)

AUDIO = np.arange(12, dtype=np.float32)


def check_embeds(path):
    embeddings = ExportedModel(str(path))(AUDIO)
    assert embeddings.dtype == np.float32
    np.testing.assert_array_equal(embeddings, 2 * AUDIO.reshape(3, 4))


@pytest.mark.parametrize('signature', [True, False])
@pytest.mark.parametrize('rank', [1, 2])
def test_saved_models_embed(tmp_path, rank, signature):
    save_saved_model(tmp_path / 'model', rank, signature)
    check_embeds(tmp_path / 'model')


@pytest.mark.parametrize('rank', [1, 2])
@pytest.mark.parametrize('shape', [(-1, 4), (1, -1, 4)])
def test_onnx_files_embed(tmp_path, rank, shape):
    pytest.importorskip('onnxruntime')
    save_onnx(tmp_path / 'model.onnx', rank, shape)
    check_embeds(tmp_path / 'model.onnx')


@pytest.mark.parametrize(
    'code',
    [
        'return 2 * audio.reshape(1, -1, 4)',
        'return (2 * audio.reshape(-1, 4),)',
        # Takes [samples] alone.
        'assert audio.dim() == 1\n    return 2 * audio.reshape(-1, 4)',
    ],
)
def test_torchscript_files_embed(tmp_path, code):
    pytest.importorskip('torch')
    save_torchscript(tmp_path / 'model.pt', code)
    check_embeds(tmp_path / 'model.pt')


def test_an_output_of_one_axis_is_one_embedding(tmp_path):
    pytest.importorskip('onnxruntime')
    save_onnx(tmp_path / 'model.onnx', 2, (-1,))
    np.testing.assert_array_equal(ExportedModel(f'{tmp_path}/model.onnx')(AUDIO), 2 * AUDIO[None])


@pytest.mark.parametrize(
    ('code', 'message'),
    [
        ('return audio.reshape(1, 3, 2, 2)', r'float32 of shape \[1, 3, 2, 2\]: wanted are'),
        ('return audio.reshape(2, 3, 2)', r'of shape \[2, 3, 2\]: wanted'),
        ('return audio.sum()', r'of shape \[\]: wanted'),
        ('return audio[:, :0].reshape(0, 4)', r'of shape \[0, 4\]: wanted'),
        ('return audio.log() - audio.log()', 'embeddings that are not finite'),
        ('return audio, audio', 'has 2 outputs: export it with one'),
        ('return audio.reshape(-1, 5)', r"refuses audio: RuntimeError: shape '\[-1, 5\]'"),
    ],
)
def test_other_outputs_are_one_line(tmp_path, code, message):
    pytest.importorskip('torch')
    save_torchscript(tmp_path / 'model.pt', code)
    with pytest.raises(InputError, match=message) as caught:
        ExportedModel(f'{tmp_path}/model.pt')(AUDIO)
    assert '\n' not in str(caught.value)


def test_embeddings_of_changing_width_are_one_line(tmp_path):
    pytest.importorskip('torch')
    save_torchscript(tmp_path / 'model.pt', 'return audio')
    model = ExportedModel(f'{tmp_path}/model.pt')
    model(AUDIO)
    with pytest.raises(InputError, match='gives 12 numbers a frame, then 8'):
        model(AUDIO[:8])


@pytest.mark.parametrize('name', ['model.onnx', 'model.pt', 'model'])
def test_what_is_no_model_is_one_line(tmp_path, name):
    pytest.importorskip('torch')
    pytest.importorskip('onnxruntime')
    path = tmp_path / name
    if '.' in name:
        path.write_text('no model')
    else:
        path.mkdir()
    with pytest.raises(InputError, match=f'{name} cannot be read: .') as caught:
        ExportedModel(str(path))
    assert '\n' not in str(caught.value)


def test_a_path_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r'nothing\.onnx is not there'):
        ExportedModel(f'{tmp_path}/nothing.onnx')


@pytest.mark.parametrize(('name', 'package'), [('a.onnx', 'onnxruntime'), ('a.pt', 'torch')])
def test_a_missing_package_is_named(tmp_path, monkeypatch, name, package):
    (tmp_path / name).touch()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=f'{name} needs a package: pip install {package}$'):
        ExportedModel(f'{tmp_path}/{name}')


def test_inputs_of_other_rank_are_one_line(tmp_path):
    pytest.importorskip('onnxruntime')
    save_onnx(tmp_path / 'model.onnx', 3)
    with pytest.raises(InputError, match='an input of rank 3, not'):
        ExportedModel(f'{tmp_path}/model.onnx')

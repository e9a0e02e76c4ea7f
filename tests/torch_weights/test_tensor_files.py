import contextlib
import importlib.util
import json
import os
import pickle

import jax
import numpy as np
import pytest

from m2l_jax.checkpoint.store import CheckpointStore, load_model, save_model
from m2l_jax.interface.errors import InputError
from m2l_jax.torch_weights.conversion import load_torch_model, save_torch_model
from m2l_jax.torch_weights.files import read_tensors
from m2l_jax.torch_weights.state_dict import to_state_dict
from tests.conftest import largest_file
from tests.torch_weights.test_conversion import UNEVEN, random_params

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec('torch') is None,
    reason='PyTorch is not installed: pip install -e .[torch]',
)


def assert_same(params, expected):
    assert jax.tree.structure(params) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, params, expected)


@pytest.mark.parametrize('suffix', ['.safetensors', pytest.param('.pt', marks=needs_torch)])
def test_a_file_holds_model_and_sizes(tmp_path, suffix):
    params = random_params(UNEVEN)
    save_torch_model(tmp_path / f'model{suffix}', UNEVEN, params)
    assert [path.name for path in tmp_path.iterdir()] == [f'model{suffix}']  # nothing half-written
    model, loaded = load_torch_model(tmp_path / f'model{suffix}')
    assert model.config == UNEVEN
    assert_same(loaded, params)


@pytest.mark.parametrize(
    'changes',
    [
        {'base_channels': 10**9},
        {'base_channels': 10**30},
        {'encoder_blocks': 10**5},
        {'bottleneck_blocks': 10**9},
        {'bottleneck_channels': 2**40},
        {'latent_channels': 10**18},
        {'embedding_channels': 10**12},
        {'downsampling': [[2, 2], [4, 10**12]]},
        {'channel_multipliers': [1] * 10**4, 'attention': [False] * 10**4}
        | {'downsampling': [[1, 1]] * (10**4 - 1)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_record_of_sizes_beyond_the_tensors_is_refused_at_once(tmp_path, monkeypatch, changes):
    from safetensors.numpy import save_file

    def trace(config):
        raise AssertionError('a model of these sizes is traced')

    tensors = to_state_dict(random_params(UNEVEN), UNEVEN)
    text = json.dumps({**UNEVEN.record(), **changes})
    path = tmp_path / 'model.safetensors'
    save_file(tensors, path, metadata={'m2l_jax_model_config': text})
    monkeypatch.setattr('m2l_jax.torch_weights.state_dict.tensor_shapes', trace)
    with pytest.raises(InputError, match=r'are beyond the \d+ tensors of \d+ numbers: get the'):
        load_torch_model(path)


@pytest.mark.parametrize('error', [ValueError, TypeError, OverflowError])
def test_sizes_that_no_array_has_are_a_line(tmp_path, monkeypatch, error):
    def overflow(config):
        raise error('array is too big')

    save_torch_model(tmp_path / 'a.safetensors', UNEVEN, random_params(UNEVEN))
    monkeypatch.setattr('m2l_jax.torch_weights.state_dict.tensor_shapes', overflow)
    with pytest.raises(InputError, match='no model has the recorded sizes: array is too big'):
        load_torch_model(tmp_path / 'a.safetensors')


@pytest.mark.parametrize(
    'text',
    ['[' * 10**5, '{"base_channels": ' + '1' * 5000 + '}', '{"latent_scale": 1' + '0' * 400 + '}'],
)
def test_a_record_without_end_is_a_line(tmp_path, text):
    from safetensors.numpy import save_file

    path = tmp_path / 'model.safetensors'
    save_file({'a': np.zeros(1, np.float32)}, path, metadata={'m2l_jax_model_config': text})
    with pytest.raises(InputError, match=r'model\.safetensors has a damaged record of its sizes'):
        load_torch_model(path)


@pytest.mark.parametrize('size', [0, 1000, 10_000])
@pytest.mark.parametrize('name', ['model.safetensors', pytest.param('model.pt', marks=needs_torch)])
def test_a_file_that_does_not_fit_leaves_nothing(tmp_path, name, size):
    params = random_params(UNEVEN)
    with (
        largest_file(size),
        pytest.raises(InputError, match=rf'{name} cannot be written: the disk may be full \('),
    ):
        save_torch_model(tmp_path / name, UNEVEN, params)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('size', [0, 1000])
def test_an_orbax_folder_that_does_not_fit_leaves_nothing(tmp_path, size):
    params = random_params(UNEVEN)
    with (
        largest_file(size),
        pytest.raises(InputError, match=r'could not be written .*File too'),
    ):
        save_model(tmp_path / 'new' / 'model', UNEVEN, params)
    assert not list(tmp_path.iterdir())


def test_orbax_folder_and_back(tmp_path):
    params = random_params(UNEVEN)
    save_model(tmp_path / 'model', UNEVEN, params)
    model, loaded = load_model(tmp_path / 'model')
    assert model.config == UNEVEN
    assert_same(loaded, params)
    with contextlib.closing(CheckpointStore(tmp_path / 'model')) as store:
        assert not store.has_state(0)  # so that training does not try to go on from it
    with pytest.raises(InputError, match='holds checkpoints already: choose another folder'):
        save_model(tmp_path / 'model', UNEVEN, params)


@needs_torch
@pytest.mark.parametrize('wrap', [lambda state: {'gen_state_dict': state}, lambda state: state])
def test_foreign_pickles_of_half_precision_and_numpy_numbers(tmp_path, wrap):
    """As the released file is: NumPy scalars beside the tensors, no record of the sizes."""
    import torch

    params = jax.tree.map(lambda leaf: leaf.astype(np.float16), random_params(UNEVEN))
    params = jax.tree.map(lambda leaf: leaf.astype(np.float32), params)
    tensors = to_state_dict(params, UNEVEN)
    content = wrap({name: torch.from_numpy(array).half() for name, array in tensors.items()})
    if 'gen_state_dict' in content:
        content |= {'loss': np.float64(0.5), 'iteration': np.int64(3), 'best': np.float32(1)}
    torch.save(content, tmp_path / 'foreign.pt')
    model, loaded = load_torch_model(tmp_path / 'foreign.pt')
    assert model.config == UNEVEN
    assert_same(loaded, params)
    with pytest.raises(InputError, match=r'model\.attention_heads=3 does not divide'):
        load_torch_model(tmp_path / 'foreign.pt', attention_heads=3)


class Malicious:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return os.mkdir, (self.victim,)


@needs_torch
@pytest.mark.parametrize('zipped', [True, False])
def test_a_file_that_wants_to_run_code_is_refused_and_runs_nothing(tmp_path, zipped):
    import torch

    victim, path = str(tmp_path / 'victim'), tmp_path / 'bad.pt'
    content = {'gen_state_dict': {'conv_inp.weight': torch.ones(2)}, 'extra': Malicious(victim)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r'bad\.pt is refused: it asks for posix\.mkdir to be run'):
        read_tensors(path)
    assert not os.path.exists(victim)
    torch.load(path, weights_only=False)  # the trap is a real one
    assert os.path.exists(victim)


@needs_torch
@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('a.pt', b'', 'a.pt is damaged'),
        ('a.pt', b'RIFF1234WAVEfmt ', 'a.pt is'),
        ('a.pt', pickle.dumps([1, 2]), 'a.pt is|a.pt holds no state dict'),
        ('a.safetensors', b'1234567890', 'a.safetensors is damaged'),
        ('a.onnx', b'', r'a\.onnx is no file of weights: use one of \.pt, \.safetensors'),
    ],
)
def test_broken_and_foreign_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_tensors(tmp_path / name)
    assert '\n' not in str(caught.value)


@needs_torch
@pytest.mark.parametrize('length', [1, 3, 20, 200, 2000, 20_000])
def test_truncated_old_pickles_are_named(tmp_path, length):
    import torch

    path = tmp_path / 'old.pt'
    torch.save({'a.weight': torch.ones(9000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match=r'old\.pt is') as caught:
        read_tensors(path)
    assert '\n' not in str(caught.value)


@needs_torch
@pytest.mark.parametrize('suffix', ['.pt', '.safetensors'])
def test_truncated_files_are_named(tmp_path, suffix):
    path = tmp_path / f'model{suffix}'
    save_torch_model(path, UNEVEN, random_params(UNEVEN))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=rf'model\{suffix} is damaged'):
        read_tensors(path)


@needs_torch
@pytest.mark.parametrize('content', [{'a': 1}, {'gen_state_dict': [1]}, 3])
def test_a_pickle_without_tensors_is_named(tmp_path, content):
    import torch

    torch.save(content, tmp_path / 'a.pt')
    with pytest.raises(InputError, match=r'a\.pt holds no state dict'):
        read_tensors(tmp_path / 'a.pt')


@needs_torch
@pytest.mark.parametrize('average', [{'a': 1}, 3, {'decay': 0.9, 'shadow_params': []}])
def test_a_model_beside_an_average_is_read_as_ever(tmp_path, average):
    import torch

    tensors = {'a': torch.ones(2)}
    torch.save({'gen_state_dict': tensors, 'ema_state_dict': average}, tmp_path / 'a.pt')
    assert read_tensors(tmp_path / 'a.pt')[0]['a'].tolist() == [1, 1]


@needs_torch
def test_whole_numbers_are_no_weights(tmp_path):
    import torch

    torch.save({'conv_inp.weight': torch.ones(2, dtype=torch.int64)}, tmp_path / 'a.pt')
    with pytest.raises(InputError, match=r'a\.pt: conv_inp\.weight holds no floating-point'):
        read_tensors(tmp_path / 'a.pt')


def test_missing_file_and_other_suffix(tmp_path):
    with pytest.raises(InputError, match=r'none\.pt does not exist'):
        read_tensors(tmp_path / 'none.pt')
    with pytest.raises(InputError, match=r'weights are written to \.pt or \.safetensors files'):
        save_torch_model(tmp_path / 'a.bin', UNEVEN, random_params(UNEVEN))
    assert not list(tmp_path.iterdir())

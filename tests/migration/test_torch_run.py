"""Files of the PyTorch trainer: order of tensors, and what is refused."""

import copy
import dataclasses
import logging

import jax
import numpy as np
import pytest

from m2l_jax.checkpoint.store import load_model
from m2l_jax.configs import default
from m2l_jax.interface.errors import InputError
from m2l_jax.migration import torch_run
from m2l_jax.migration.runs import convert_run
from m2l_jax.migration.torch_run import TorchRun, read_run, write_run
from m2l_jax.torch_weights import files
from m2l_jax.torch_weights.conversion import load_torch_model, save_torch_model
from m2l_jax.torch_weights.pickles import load_pickle
from m2l_jax.torch_weights.reference import reference_network
from m2l_jax.torch_weights.trainer import in_order
from tests.commands.tiny import MODEL
from tests.parity.small import CONFIG, require_reference
from tests.torch_weights.test_conversion import UNEVEN, random_params
from tests.training.runs import assert_identical

torch = pytest.importorskip('torch', reason='PyTorch is not installed: pip install -e .[torch]')

RUN = TorchRun(MODEL, 30, 28, 0.8, 0.99, 0.97, *(random_params(MODEL, n) for n in range(4)))
FIRST = 'encoder.gain.scale'


@pytest.mark.parametrize('config', [CONFIG, UNEVEN])
def test_tensors_are_in_the_order_of_the_packages_parameters(config):
    require_reference()
    with reference_network(config) as network:
        expected = [name for name, parameter in network.named_parameters()]
        assert all(parameter.requires_grad for parameter in network.parameters())
    assert in_order(sorted(expected)) == expected == list(network.state_dict())


def test_a_run_comes_back_as_it_was_written(tmp_path, caplog):
    write_run(tmp_path / 'run.pt', RUN, 1e-3)
    assert [path.name for path in tmp_path.iterdir()] == ['run.pt']
    with caplog.at_level(logging.WARNING):
        run = read_run(tmp_path / 'run.pt')
    assert '30 iterations, 28 updates of its parameters and 30 of their average' in caplog.text
    for field in dataclasses.fields(TorchRun):
        one, other = getattr(run, field.name), getattr(RUN, field.name)
        if isinstance(other, dict):
            assert_identical(one, other)
        else:
            assert one == other, field.name
    _, params = load_torch_model(tmp_path / 'run.pt')  # as the PyTorch package reads it
    assert_identical(params, RUN.params)


def test_a_run_before_its_first_update_has_moments_of_zeros(tmp_path):
    write_run(tmp_path / 'run.pt', dataclasses.replace(RUN, step=0, updates=0), 1e-3)
    content = torch.load(tmp_path / 'run.pt', weights_only=True)
    assert content['optimizer_state_dict']['state'] == {}
    run = read_run(tmp_path / 'run.pt')
    assert run.updates == 0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves((run.first, run.second)))


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp('written') / 'run.pt'
    write_run(path, RUN, 1e-3)
    return torch.load(path, weights_only=True)


def optimizer_of(cls, content):
    parameters = [
        torch.nn.Parameter(tensor.clone()) for tensor in content['gen_state_dict'].values()
    ]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer = cls(parameters)
    optimizer.step()
    content['optimizer_state_dict'] = optimizer.state_dict()


def states(content):
    return content['optimizer_state_dict']['state']


def group(content):
    return content['optimizer_state_dict']['param_groups'][0]


def shadow(content):
    return content['ema_state_dict']['shadow_params']


def swap(content):
    tensors = content['gen_state_dict']
    content['gen_state_dict'] = dict(sorted(tensors.items()))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda content: content.pop('it'), "an optimizer_state_dict and no 'it', the number of"),
        (lambda content: content.update(it=-1), "'it' is -1, not a number of steps"),
        (lambda content: content.update(it='7'), "'it' is '7', not a number of steps"),
        (lambda content: content.pop('ema_state_dict'), 'no list ema_state_dict.shadow_params'),
        (lambda content: content['ema_state_dict'].pop('decay'), 'decay is None, not from 0 to'),
        (lambda content: shadow(content).pop(), r'shadow_params holds \d+ tensors for the \d+ of'),
        (
            lambda content: shadow(content).reverse(),
            r'shadow_params\[0\] has shape .* and its tens',
        ),
        (
            lambda content: shadow(content).__setitem__(0, 3),
            r'\[0\], of encoder\.gain\.s.* no dense',
        ),
        (
            lambda content: shadow(content).__setitem__(0, torch.ones(2).to_sparse()),
            r'\[0\], of encoder\.gain\.scale, is no dense tensor',
        ),
        (
            lambda content: shadow(content).__setitem__(0, torch.ones(2, dtype=torch.int64)),
            r'\[0\], of encoder\.gain\.scale, holds no floating-point numbers',
        ),
        (
            swap,
            "are not in the order of the package's model, by which optimizer_state_dict.exp_avg",
        ),
        (lambda content: content.pop('gen_state_dict'), 'holds no state dict'),
        (
            lambda content: content['gen_state_dict'].popitem(),
            'the tensors are not those of a Music2Latent model; missing: up_layers',
        ),
        (lambda content: states(content).pop(0), r'exp_avg holds \d+ tensors for the \d+'),
        (
            lambda content: states(content)[0].pop('exp_avg'),
            'step, exp_avg_sq of tensor 0, and RAd',
        ),
        (
            lambda content: states(content)[0].update(exp_avg=torch.ones(3)),
            r'exp_avg\[0\] has shape \(3,\) and its tensor encoder\.gain\.scale \(1, 1, \d+, 1\)',
        ),
        (lambda content: states(content)[0].update(step=3), 'counts from 3 to 28 updates'),
        (lambda content: group(content).update(weight_decay=0.1), 'weight_decay=0.1: only 0 has'),
        (lambda content: group(content).update(betas=(0.9,)), r'betas=\(0\.9,\), not two numbers'),
        (lambda content: group(content).update(betas=('a', 'b')), r"betas=\('a', 'b'\), not two"),
        (lambda content: group(content)['params'].pop(), r'is not of all the \d+ tensors of gen'),
        (
            lambda content: group(content).update(params=None),
            r'is not of all the \d+ tensors of gen',
        ),
        (
            lambda content: content['ema_state_dict']['shadow_params'][3].fill_(torch.nan),
            r'shadow_params\[3\], of .*, holds NaN or infinity: its training diverged',
        ),
        (lambda content: content.update(optimizer_state_dict=3), "no state of PyTorch's optim"),
        (
            lambda content: content['optimizer_state_dict']['param_groups'].append({}),
            'has 2 groups of parameters instead of one',
        ),
        (lambda content: optimizer_of(torch.optim.AdamW, content), 'other optimiser .* amsgrad'),
        (lambda content: optimizer_of(torch.optim.NAdam, content), 'optimiser .* momentum_decay'),
        (lambda content: optimizer_of(torch.optim.SGD, content), 'optimiser .* momentum'),
        (
            lambda content: optimizer_of(torch.optim.Adagrad, content),
            'another optimiser than RAdam',
        ),
    ],
)
def test_what_is_missing_or_does_not_fit_is_a_line(written, tmp_path, change, message):
    path, content = tmp_path / 'run.pt', copy.deepcopy(written)
    change(content)
    torch.save(content, path)
    with pytest.raises(InputError, match=rf'run\.pt:? .*({message})') as caught:
        read_run(path)
    assert '\n' not in str(caught.value)


def test_the_optimizer_of_pytorch_itself_is_taken(written, tmp_path):
    path, content = tmp_path / 'run.pt', copy.deepcopy(written)
    optimizer_of(torch.optim.RAdam, content)
    for key in ('decoupled_weight_decay', 'capturable', 'maximize', 'foreach', 'differentiable'):
        del group(content)[key]  # as old versions have it, which count in plain numbers
    for state in states(content).values():
        state['step'] = int(state['step'])
    torch.save(content, path)
    run = read_run(path)
    assert (run.updates, run.b1, run.b2) == (1, 0.9, 0.999)
    np.testing.assert_allclose(run.first['encoder']['gain'], 0.1, rtol=1e-6)
    np.testing.assert_allclose(run.second['encoder']['gain'], 1e-3, rtol=1e-5)


class Program:
    def __reduce__(self):
        return print, ('it ran',)


def test_truncated_missing_and_hostile_files_are_lines(tmp_path, capsys):
    path = tmp_path / 'run.pt'
    with pytest.raises(InputError, match=r'run\.pt does not exist'):
        read_run(path)
    write_run(path, RUN, 1e-3)
    content = torch.load(path, weights_only=True)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r'run\.pt is damaged'):
        read_run(path)
    torch.save({**content, 'it': Program()}, path)
    with pytest.raises(InputError, match=r'is refused: it asks for .*print to be run'):
        read_run(path)
    assert 'it ran' not in capsys.readouterr().out
    torch.save(content['gen_state_dict'], path)
    config, params = read_run(path)
    assert config == RUN.config
    jax.tree.map(np.testing.assert_array_equal, params, RUN.params)


def test_a_model_alone_becomes_a_folder_by_one_reading(tmp_path, monkeypatch):
    params, read = random_params(MODEL), []
    save_torch_model(tmp_path / 'bare.pt', MODEL, params)
    for module in (torch_run, files):
        monkeypatch.setattr(
            module, 'load_pickle', lambda path: read.append(path) or load_pickle(path)
        )
    count = convert_run(
        str(tmp_path / 'bare.pt'), tmp_path / 'model', default.get_config(), demanded=False
    )
    model, restored = load_model(tmp_path / 'model')
    assert model.config == MODEL
    assert_identical(restored, params)
    assert count == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert read == [tmp_path / 'bare.pt']

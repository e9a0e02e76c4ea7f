"""Runs converted whole by the command: what is refused, and that training goes on."""

import contextlib
import dataclasses

import jax
import pytest

from m2l_jax.checkpoint.store import CheckpointStore, save_model
from m2l_jax.configs import default
from m2l_jax.interface.errors import InputError
from m2l_jax.migration.runs import convert_run
from m2l_jax.migration.torch_run import TorchRun, read_run, write_run
from m2l_jax.torch_weights.conversion import save_torch_model
from m2l_jax.training.loop import train_and_evaluate
from tests.commands.tiny import MODEL
from tests.small_training import make_config
from tests.torch_weights.test_conversion import random_params
from tests.training.runs import assert_identical, first_state

pytest.importorskip('torch', reason='PyTorch is not installed: pip install -e .[torch]')


def convert_whole(source, target, **arguments):
    return convert_run(str(source), target, default.get_config(), demanded=True, **arguments)


def test_a_run_of_here_goes_to_pytorch_and_comes_back(whole, corpus, tmp_path, monkeypatch):
    count = convert_whole(whole.workdir, tmp_path / 'run.pt')
    run = read_run(tmp_path / 'run.pt')
    assert (run.step, run.updates, run.config) == (
        6,
        6,
        dataclasses.replace(run.config, dtype='float32', param_dtype='float32'),
    )
    assert_identical(run.params, jax.device_get(whole.state.params))
    assert convert_whole(tmp_path / 'run.pt', tmp_path / 'back') == count
    config = make_config(corpus).unlock()
    config.train.steps = 7
    state = first_state(config, tmp_path / 'back', monkeypatch)
    assert_identical(state, whole.state)
    monkeypatch.undo()
    assert int(train_and_evaluate(config, tmp_path / 'back').step) == 7


def test_what_cannot_be_converted_whole_is_a_line(whole, tmp_path):
    save_model(tmp_path / 'model', MODEL, random_params(MODEL))
    run = TorchRun(MODEL, 3, 3, 0.9, 0.999, 0.9, *[random_params(MODEL)] * 4)
    write_run(tmp_path / 'run.pt', run, 1e-3)
    save_torch_model(tmp_path / 'bare.pt', MODEL, random_params(MODEL))
    pairs = 'a folder to a .pt file, or of a .pt file to a folder'
    for source, target, arguments, message in (
        (tmp_path / 'model', 'a.pt', {}, 'holds a model without the state of a training run: conv'),
        (whole.workdir, 'a.safetensors', {}, f'--with_training_state is of {pairs}'),
        (tmp_path / 'run.pt', 'a.pt', {}, f'--with_training_state is of {pairs}'),
        (whole.workdir, 'a.pt', {'storage': 'float16'}, 'leave --storage=float16 out'),
        (whole.workdir, 'a.pt', {'most_bytes': 1000}, 'MB, more than 0.001'),
        (tmp_path / 'model', 'a', {}, f'--with_training_state is of {pairs}'),
        (whole.workdir, 'a', {}, f'--with_training_state is of {pairs}'),
        (tmp_path / 'bare.pt', 'a', {}, 'holds no training state: convert it without --with_train'),
        (tmp_path / 'none.pt', 'a', {}, 'none.pt does not exist'),
        (tmp_path / 'run.pt', 'model', {}, 'holds checkpoints already: choose another folder'),
    ):
        with pytest.raises(InputError) as caught:
            convert_whole(source, tmp_path / target, **arguments)
        assert message in str(caught.value)
        assert '\n' not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['bare.pt', 'model', 'run.pt']


def test_another_optimisers_state_stays_here(whole, tmp_path):
    with contextlib.closing(CheckpointStore(whole.workdir)) as store:
        recorded = store.read_config(6)
    recorded['optimizer']['name'] = 'adamw'
    with contextlib.closing(CheckpointStore(tmp_path / 'other')) as store:
        state = jax.device_get(whole.state)
        store.save(6, state.replace(ema_params=None), state.ema_params, recorded)
    with pytest.raises(
        InputError, match=r'config\.optimizer\.name=adamw: the PyTorch trainer goes'
    ):
        convert_whole(tmp_path / 'other', tmp_path / 'a.pt')

"""A run of the PyTorch trainer goes on here, and one of here goes on there.

PyTorch's side is what that trainer saves, around the package's own network: PyTorch's RAdam, an
average that counts its updates from 1, and iterations.
"""

import contextlib
import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.parity.small import SMALLER, require_reference

require_reference()

import torch

from m2l_jax.audio.spectrogram import SpectrogramConfig
from m2l_jax.checkpoint.store import CheckpointStore, load_model
from m2l_jax.configs import default
from m2l_jax.consistency.noise import IndexDensity, StepSchedule
from m2l_jax.interface.settings import build
from m2l_jax.migration.runs import convert_run
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.torch_weights.conversion import load_torch_model
from m2l_jax.torch_weights.names import unused_tensors
from m2l_jax.torch_weights.reference import random_tensors, reference_network
from m2l_jax.torch_weights.state_dict import to_state_dict
from m2l_jax.training.config import TrainingConfig
from m2l_jax.training.mesh import make_mesh
from m2l_jax.training.resume import check_newest, create_or_restore
from m2l_jax.training.setup import Setup
from m2l_jax.training.step import draw, step_key
from tests.parity.test_training import reference_loss, spectrograms
from tests.training.runs import assert_identical

MODEL = dataclasses.replace(
    SMALLER,
    base_channels=4,
    channel_multipliers=(1, 2),
    downsampling=((2, 2),),
    attention=(False, True),
    bottleneck_channels=16,
    spectrogram=SpectrogramConfig(window=64, hop=16),
)
STEPS, WARMUP, LOW, HIGH = 80, 5, 1e-5, 1e-3
BEFORE, AFTER = 25, 20
DECAY = 0.7  # reached within the first steps


def make_config():
    config = default.get_config()
    config.model = dataclasses.asdict(MODEL)
    config.optimizer.update(
        learning_rate=HIGH, final_learning_rate=LOW, warmup_steps=WARMUP, ema_decay=DECAY
    )
    config.data.update(path='music', batch_size=2, crop_frames=16)
    config.train.steps = STEPS
    return config


@jax.jit
def draws(step):
    shape = (MODEL.spectrogram.bins, 16, 2)
    density = IndexDensity(-1.1, 2.0)
    return draw(step_key(0, step), jnp.arange(2), shape, Music2Latent(MODEL), density)


class Trainer:
    """The recipe in PyTorch."""

    def __init__(self, network):
        self.network, self.it, self.updates = network, 0, 0
        self.radam = torch.optim.RAdam(network.parameters(), lr=HIGH)
        self.shadow = [parameter.detach().clone() for parameter in network.parameters()]

    def train(self, steps):
        return [self.train_step() for _ in range(steps)]

    def train_step(self):
        rate = HIGH * self.it / WARMUP
        if self.it >= WARMUP:
            progress = (self.it - WARMUP) / (STEPS - WARMUP)
            rate = LOW + (HIGH - LOW) * 0.5 * (1 + np.cos(np.pi * progress))
        self.radam.param_groups[0]['lr'] = rate
        drawn = draws(self.it)
        delta = float(StepSchedule(1.0, 3.0).delta(self.it / STEPS))
        loss = reference_loss(
            self.network, spectrograms(MODEL, self.it), drawn.index, drawn.noise, delta
        )
        self.radam.zero_grad(set_to_none=True)
        loss.backward()
        self.radam.step()
        self.it += 1
        self.updates += 1
        kept = min(DECAY, (1 + self.updates) / (10 + self.updates))
        for average, parameter in zip(self.shadow, self.network.parameters(), strict=True):
            average.sub_((1 - kept) * (average - parameter.detach()))
        return loss.item()

    def content(self):
        return {
            'optimizer_state_dict': self.radam.state_dict(),
            'scaler_state_dict': {'scale': 65536.0},
            'loss': np.float64(0.5),
            'fid': np.float32(3),
            'it': self.it,
            'epoch': 0,
            'best_checkpoint_path': '',
            'gen_state_dict': self.network.state_dict(),
            'ema_state_dict': {
                'decay': DECAY,
                'num_updates': self.updates,
                'shadow_params': self.shadow,
                'collected_params': None,
            },
        }

    def load(self, content):
        self.network.load_state_dict(content['gen_state_dict'], strict=True)
        self.radam.load_state_dict(content['optimizer_state_dict'])
        torch.amp.GradScaler('cpu', enabled=True).load_state_dict(content['scaler_state_dict'])
        self.shadow = content['ema_state_dict']['shadow_params']
        self.it, self.updates = content['it'], content['ema_state_dict']['num_updates']
        assert content['ema_state_dict']['decay'] == DECAY
        assert {'epoch', 'score', 'best_checkpoint_path'} <= content.keys()

    def named(self, tensors):
        names = [name for name, _ in self.network.named_parameters()]
        return dict(zip(names, (tensor.numpy() for tensor in tensors), strict=True))

    def moments(self, key):
        states = self.radam.state
        return [states[p].get(key, torch.zeros_like(p)) for p in self.network.parameters()]


@pytest.fixture(scope='module')
def network():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine, several wait for each other most of the time
    with reference_network(MODEL, random_tensors(MODEL)) as network:
        yield network
    torch.set_num_threads(threads)


@pytest.fixture(scope='module')
def trained(network, tmp_path_factory):
    """A PyTorch run in the middle, and its file."""
    trainer, path = Trainer(network), tmp_path_factory.mktemp('pytorch') / 'run.pt'
    trainer.train(BEFORE)
    torch.save(trainer.content(), path)
    return trainer, path


def to_folder(path, folder, **arguments):
    config = default.get_config()
    return convert_run(
        str(path),
        folder,
        config,
        demanded=False,
        attention_heads=MODEL.attention_heads,
        **arguments,
    )


def size_of(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def assert_near(ours, theirs, tolerance):
    ours, names = to_state_dict(ours, MODEL), theirs.keys() - dict(unused_tensors(MODEL)).keys()
    one, other = (np.concatenate([each[name].ravel() for name in names]) for each in (ours, theirs))
    assert np.linalg.norm(one - other) <= tolerance * np.linalg.norm(other)


def test_the_next_losses_are_pytorchs_in_both_directions(trained, tmp_path, caplog):
    trainer, path = trained
    run = tmp_path / 'run'
    with caplog.at_level(logging.INFO):
        count = to_folder(path, run)
    assert 'left out, as of no use here: scaler_state_dict, loss, fid, epoch, best_' in caplog.text
    settings = build(TrainingConfig, make_config())
    setup = Setup(settings, make_mesh(jax.devices()[:1]))
    with contextlib.closing(CheckpointStore(run)) as store:
        step = check_newest(settings, store, run, 'corpus')
        assert step == BEFORE
        state = create_or_restore(setup, store, step)
    assert count == size_of(setup.params)
    train_step, losses = setup.make_step(), []

    def go_on(state):
        losses.clear()
        for _ in range(AFTER):
            batch = spectrograms(MODEL, int(state.step))
            state, metrics = train_step(state, batch, setup.steps)
            losses.append(float(metrics['loss']))
        return state

    state = go_on(state)
    np.testing.assert_allclose(losses, trainer.train(AFTER), rtol=1e-4)
    trees = setup.to_stored(state)
    adam = trees.opt_state[1][0]
    assert isinstance(adam, optax.ScaleByAdamState)
    assert int(adam.count) == BEFORE + AFTER
    assert_near(trees.params, trainer.named(p.detach() for p in trainer.network.parameters()), 1e-3)
    assert_near(trees.ema_params, trainer.named(trainer.shadow), 1e-3)
    assert_near(adam.mu, trainer.named(trainer.moments('exp_avg')), 1e-2)
    assert_near(adam.nu, trainer.named(trainer.moments('exp_avg_sq')), 1e-2)

    recorded = {**dataclasses.asdict(settings), 'model': settings.model.record(), 'corpus': 'x'}
    with contextlib.closing(CheckpointStore(tmp_path / 'ours')) as store:
        store.save(int(trees.step), trees.replace(ema_params=None), trees.ema_params, recorded)
    back = tmp_path / 'back.pt'
    assert convert_run(tmp_path / 'ours', back, default.get_config(), demanded=True) == count
    with reference_network(MODEL, seed=1) as fresh:
        another = Trainer(fresh)
        another.load(torch.load(back, weights_only=True))
        assert another.it == BEFORE + AFTER
        theirs = another.train(AFTER)
        go_on(state)
    np.testing.assert_allclose(losses, theirs, rtol=1e-4)


def assert_equal_tensors(params, expected):
    tensors = to_state_dict(params, MODEL)
    for name in expected.keys() - dict(unused_tensors(MODEL)).keys():
        np.testing.assert_array_equal(tensors[name], expected[name])


def test_a_file_is_read_as_its_parameters_and_its_run_as_their_average(trained, tmp_path):
    trainer, _ = trained
    torch.save(trainer.content(), tmp_path / 'now.pt')
    _, params = load_torch_model(tmp_path / 'now.pt', MODEL.attention_heads)
    assert_equal_tensors(params, trainer.named(p.detach() for p in trainer.network.parameters()))
    to_folder(tmp_path / 'now.pt', tmp_path / 'run')
    _, params = load_model(tmp_path / 'run')
    assert_equal_tensors(jax.device_get(params), trainer.named(trainer.shadow))


def test_of_a_file_without_a_training_state_the_model_is_converted(trained, tmp_path):
    trainer, _ = trained
    # The files that the trainer writes for use have no average beside their tensors.
    clean = {'gen_state_dict': trainer.network.state_dict(), 'it': 3, 'fid': np.float64(1)}
    torch.save(clean, tmp_path / 'clean.pt')
    _, params = load_torch_model(tmp_path / 'clean.pt', MODEL.attention_heads)
    kernel = np.moveaxis(np.asarray(params['unet']['conv_in']['kernel']), (-1, -2), (0, 1))
    np.testing.assert_array_equal(kernel, clean['gen_state_dict']['conv_inp.weight'].numpy())
    assert to_folder(tmp_path / 'clean.pt', tmp_path / 'model') == size_of(params)
    assert_identical(jax.device_get(load_model(tmp_path / 'model')[1]), params)

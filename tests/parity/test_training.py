"""Training steps of both: the same weights, crops, noise levels and noise in, the same out.

The reference's side is the recipe around the package's own network: its pseudo-Huber loss, its
RAdam (PyTorch's) and a plain average of weights.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.parity.small import CONFIG, SMALLER, require_reference

require_reference()

import torch

from m2l_jax.audio.spectrogram import to_spectrogram
from m2l_jax.consistency.noise import IndexDensity, StepSchedule
from m2l_jax.interface.devices import compute_once
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.torch_weights.names import name_table
from m2l_jax.torch_weights.reference import random_tensors, reference_network, state_dict_of
from m2l_jax.torch_weights.state_dict import from_state_dict, to_state_dict
from m2l_jax.training.state import OptimizerConfig, ema_rate, make_optimizer
from m2l_jax.training.step import compute_loss, draw
from tests.conftest import make_music

STEPS = 50
HUBER_SCALE = 0.00054
SCHEDULE = StepSchedule(1.0, 3.0)
OPTIMIZER = OptimizerConfig(
    learning_rate=1e-3,
    final_learning_rate=1e-5,
    warmup_steps=5,
    b1=0.9,
    b2=0.999,
    ema_decay=0.9,
    clip_norm=0.0,
)


def spectrograms(config, step):
    music = make_music(0.1, channels=2, seed=step)[:, : config.spectrogram.samples(16)]
    return to_spectrogram(music, config.spectrogram)


def draws(config, step):
    key = jax.random.fold_in(jax.random.key(0), step)
    shape = (config.spectrogram.bins, 16, 2)
    return draw(key, jnp.arange(2), shape, Music2Latent(config), IndexDensity(-1.1, 2.0))


def sigma(index):
    levels = CONFIG.noise
    low, high = levels.sigma_min ** (1 / levels.rho), levels.sigma_max ** (1 / levels.rho)
    return (low + index * (high - low)) ** levels.rho


def reference_loss(network, spectrogram, index, noise, delta):
    """Equation by equation, as the paper has it; every σ here is far enough from its σ'."""
    clean = torch.from_numpy(np.array(spectrogram)).permute(0, 3, 1, 2)
    noise = torch.from_numpy(np.array(noise)).permute(0, 3, 1, 2)
    index = torch.from_numpy(np.array(index))
    high, low = sigma(index), sigma(torch.clamp(index - delta, min=0))
    latents = network.encoder(clean)
    pyramid = network.decoder(latents)
    student = network(latents, clean + high[:, None, None, None] * noise, high, pyramid)
    with torch.no_grad():
        teacher = network(latents, clean + low[:, None, None, None] * noise, low, pyramid)
    squared = ((student - teacher) ** 2).sum((1, 2, 3))
    c = HUBER_SCALE * clean[0].numel() ** 0.5
    return ((torch.sqrt(squared + c**2) - c) / (high - low)).mean()


def make_loss(config):
    model = Music2Latent(config)

    def loss(params, spectrogram, drawn, delta):
        return jnp.mean(compute_loss(params, model, spectrogram, drawn, delta, HUBER_SCALE)[0])

    return jax.jit(jax.value_and_grad(loss))


def relative(ours, reference):
    return np.linalg.norm(ours - reference) / np.linalg.norm(reference)


def test_loss_and_every_gradient():
    tensors = random_tensors(CONFIG)
    delta = float(SCHEDULE.delta(0.5))
    drawn, batch = draws(CONFIG, 0), spectrograms(CONFIG, 0)
    loss, gradients = make_loss(CONFIG)(from_state_dict(tensors, CONFIG), batch, drawn, delta)
    with reference_network(CONFIG, tensors) as network:
        expected = reference_loss(network, batch, drawn.index, drawn.noise, delta)
        expected.backward()
        reference = {name: p.grad for name, p in network.named_parameters()}
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-5)
    ours = to_state_dict(gradients, CONFIG)
    errors = {
        entry.tensor: relative(ours[entry.tensor], reference[entry.tensor].numpy())
        for entry in name_table(CONFIG)
    }
    assert {name: error for name, error in errors.items() if not error <= 1e-4} == {}
    # What the package never uses gets no gradient there either.
    assert all(reference[name] is None for name in reference.keys() - errors.keys())


def learning_rate(step):
    """Linear from 0 over the warm-up, then half a cosine down to the last."""
    low, high, warmup = 1e-5, 1e-3, 5
    if step < warmup:
        return high * step / warmup
    return low + (high - low) * 0.5 * (1 + np.cos(np.pi * (step - warmup) / (STEPS - warmup)))


@pytest.mark.parametrize(
    ('b2', 'tolerance'),
    [
        (0.9, 1e-5),
        # RAdam's rectification is the difference of two large numbers on the first steps that have
        # it, the larger the nearer b2 is to 1. optax takes it in float32 and PyTorch in float64:
        # the sixth update is 1 % off, the fiftieth 4e-4.
        (0.999, 2e-3),
    ],
)
def test_optimizer_and_average_are_pytorchs_on_the_same_gradients(b2, tolerance):
    random = np.random.default_rng(0)
    # Small, for their float32 to resolve the first steps, whose rate is hardly above 0.
    start = 1e-3 * random.standard_normal((5, 40)).astype(np.float32)
    optimizer = make_optimizer(dataclasses.replace(OPTIMIZER, b2=b2), STEPS)
    params, opt_state, average = jnp.asarray(start), optimizer.init(jnp.asarray(start)), start
    theirs = torch.nn.Parameter(torch.from_numpy(start.copy()))
    radam = torch.optim.RAdam([theirs], betas=(OPTIMIZER.b1, b2))
    their_average = theirs.detach().clone()
    for step in range(STEPS):
        # Of very different sizes, as a network's are.
        gradient = random.standard_normal(start.shape) * 10.0 ** np.arange(-4, 1)[:, None]
        gradient = gradient.astype(np.float32)
        updates, opt_state = optimizer.update(jnp.asarray(gradient), opt_state, params)
        params = optax.apply_updates(params, updates)
        rate = ema_rate(jnp.asarray(step), OPTIMIZER.ema_decay)
        average = optax.incremental_update(params, average, rate)

        theirs.grad = torch.from_numpy(gradient)
        radam.param_groups[0]['lr'] = learning_rate(step)
        radam.step()
        kept = min(OPTIMIZER.ema_decay, (1 + step) / (10 + step))
        their_average = kept * their_average + (1 - kept) * theirs.detach()
        moved = theirs.detach().numpy() - start
        assert np.linalg.norm(params - start - moved) <= tolerance * np.linalg.norm(moved)
    assert np.linalg.norm(moved) > 1e-3
    average_moved = their_average.numpy() - start
    error = np.linalg.norm(average - start - average_moved)
    assert error <= tolerance * np.linalg.norm(average_moved)


def test_the_losses_of_fifty_steps_stay_together():
    tensors = random_tensors(SMALLER)
    optimizer = make_optimizer(OPTIMIZER, STEPS)
    params = jax.tree.map(jnp.asarray, from_state_dict(tensors, SMALLER))
    opt_state = optimizer.init(params)
    loss = make_loss(SMALLER)

    @jax.jit
    def step_on(gradients, opt_state, params):
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    ours, theirs = [], []
    with reference_network(SMALLER, tensors) as network:
        radam = torch.optim.RAdam(network.parameters(), betas=(OPTIMIZER.b1, OPTIMIZER.b2))
        for step in range(STEPS):
            delta = float(SCHEDULE.delta(step / STEPS))
            drawn, batch = draws(SMALLER, step), spectrograms(SMALLER, step)
            value, gradients = loss(params, batch, drawn, delta)
            params, opt_state = step_on(gradients, opt_state, params)
            ours.append(float(value))

            radam.param_groups[0]['lr'] = learning_rate(step)
            radam.zero_grad()
            expected = reference_loss(network, batch, drawn.index, drawn.noise, delta)
            expected.backward()
            radam.step()
            theirs.append(expected.item())
        moved = relative(tensors['conv_inp.weight'], state_dict_of(network)['conv_inp.weight'])
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)
    assert moved > 1e-3  # both went somewhere


def test_initialisation_has_the_packages_statistics():
    """Mean and standard deviation of each kind of layer, over all layers of that kind."""
    model = Music2Latent(CONFIG)
    keys = jnp.stack([jax.random.key(seed) for seed in range(4)])
    drawn = compute_once(lambda: jax.vmap(model.init_params)(keys))
    ours, reference = {}, {}
    for seed in range(4):
        params = jax.tree.map(lambda leaf, seed=seed: leaf[seed], drawn)
        with reference_network(CONFIG, seed=seed) as network:
            tensors = state_dict_of(network)
        for entry in name_table(CONFIG):
            kind = tuple(key.rstrip('0123456789_') for key in entry.path[-2:])
            leaf = params
            for key in entry.path:
                leaf = leaf[key]
            # By the bound of a uniform draw, so that layers of different sizes can be pooled.
            weight = tensors[re.sub('bias$', 'weight', entry.tensor)]
            bound = 1 / np.sqrt(np.prod(weight.shape[1:]))
            ours.setdefault(kind, []).append(np.ravel(leaf) / bound)
            reference.setdefault(kind, []).append(np.ravel(tensors[entry.tensor]) / bound)
    for kind, arrays in ours.items():
        one, other = np.concatenate(arrays), np.concatenate(reference[kind])
        assert np.sum(one == 0) == np.sum(other == 0), kind
        one, other = one[one != 0], other[other != 0]
        if not len(other):
            continue
        # Six standard errors of the difference of two means, and of two deviations.
        error = 6 * np.sqrt(2 / len(other))
        atol = error * other.std() + 1e-7
        np.testing.assert_allclose(one.mean(), other.mean(), atol=atol, rtol=0, err_msg=kind)
        np.testing.assert_allclose(one.std(), other.std(), atol=atol / 2, rtol=0, err_msg=kind)

"""The training step that benchmarks compare with is the recipe: its loss and gradient are ours."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np

from tests.parity.small import CONFIG, require_reference

require_reference()

import torch
from music2latent import hparams

from benchmarks.options import Style
from benchmarks.package import PackageTraining
from m2l_jax.configs import default
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.torch_weights.names import name_table
from m2l_jax.torch_weights.reference import random_tensors
from m2l_jax.torch_weights.state_dict import from_state_dict, to_state_dict
from m2l_jax.training.step import Draws, compute_loss

FRAMES = 16


def test_loss_and_gradient(tmp_path):
    own = dict(vars(hparams))
    tensors = random_tensors(CONFIG)
    np.savez(tmp_path / 'tensors.npz', **tensors)
    random = np.random.default_rng(0)
    shape = (2, CONFIG.spectrogram.bins, FRAMES, 2)
    clean, noise = (random.standard_normal(shape, np.float32) for _ in range(2))
    index = np.array([0.05, 0.7], np.float32)  # the first one's teacher is at the lowest level
    recipe = default.get_config().consistency
    model = Music2Latent(CONFIG)

    def mean_loss(params):
        draws = Draws(jnp.asarray(index), jnp.asarray(noise))
        delta = jnp.float32(10.0**-recipe.schedule.start_exponent)
        scale = recipe.huber_scale
        return jnp.mean(compute_loss(params, model, jnp.asarray(clean), draws, delta, scale)[0])

    params = from_state_dict(tensors, CONFIG)
    loss, gradient = jax.jit(jax.value_and_grad(mean_loss))(params)
    path = str(tmp_path / 'tensors.npz')
    clean, noise = (torch.from_numpy(np.moveaxis(array, 3, 1).copy()) for array in (clean, noise))
    training = PackageTraining(CONFIG, path, 2, FRAMES, 'cpu', Style())
    # Left open, it would give the package its own sizes back whenever Python collects it, in the
    # middle of another test.
    with contextlib.closing(training):
        theirs = training.mean_loss(clean, torch.from_numpy(index), noise)
        np.testing.assert_allclose(loss, theirs.item(), rtol=1e-5)
        theirs.backward()
    assert vars(hparams) == own
    ours = to_state_dict(gradient, CONFIG)
    gradients = {name: parameter.grad for name, parameter in training.network.named_parameters()}
    for entry in name_table(CONFIG):
        expected = gradients[entry.tensor].numpy()
        error = np.linalg.norm(ours[entry.tensor] - expected)
        assert error <= 1e-4 * np.linalg.norm(expected), entry.tensor

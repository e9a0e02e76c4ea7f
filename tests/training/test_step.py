import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks import small_model
from m2l_jax.audio.spectrogram import SpectrogramConfig, to_spectrogram
from m2l_jax.consistency.auxiliary import AuxiliarySchedule, auxiliary_loss
from m2l_jax.consistency.config import ConsistencyConfig
from m2l_jax.consistency.noise import DenoisingSchedule, IndexDensity, StepSchedule
from m2l_jax.interface.devices import compute_once
from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.training import mesh as meshes
from m2l_jax.training.state import FROZEN, create_state, param_shapes, ravel, to_trees
from m2l_jax.training.step import compute_loss, draw, make_train_step
from tests.conftest import make_music
from tests.model.test_layers import perturbed

CONSISTENCY = ConsistencyConfig(IndexDensity(-1.1, 2.0), StepSchedule(1.0, 3.0), 0.00054)
STEPS = 10
# Every kind of layer, and as few of each as there can be: its steps are compiled again and again.
CONFIG = dataclasses.replace(
    small_model.CONFIG,
    channel_multipliers=(1, 2),
    downsampling=((2, 2),),
    attention=(False, True),
    spectrogram=SpectrogramConfig(window=256, hop=64),
)


@pytest.fixture(scope='module')
def model():
    return Music2Latent(CONFIG)


@pytest.fixture(scope='module')
def state(model):
    """A state whose zero-initialised layers are not zero, or their gradients would be hidden."""
    make = lambda: create_state(model, optax.sgd(1.0), jax.random.key(0))  # noqa: E731
    state = to_trees(compute_once(make), param_shapes(model))
    params = perturbed(state.params, 0.1)
    return state.replace(params=params, ema_params=params, step=jnp.asarray(3))


@pytest.fixture(scope='module')
def waveforms(model):
    samples = model.config.spectrogram.samples(8)
    return make_music(1, channels=4)[:, 4000 : 4000 + samples]


@functools.cache
def make_step(model, mesh, accumulate, consistency, freeze):
    return make_train_step(
        *(model, consistency, lambda steps: optax.sgd(1.0), lambda steps: lambda count: 1.0),
        *(0.5, 7, mesh, accumulate),
        freeze=freeze,
    )


def prepare_step(model, state, batch, devices, accumulate=1, consistency=CONSISTENCY, freeze=''):
    """The jitted step and its arguments."""
    mesh = meshes.make_mesh(jax.devices()[:devices])
    step = make_step(model, mesh, accumulate, consistency, freeze)
    state = state.replace(params=ravel(state.params), ema_params=ravel(state.ema_params))
    state = jax.device_put(jax.tree.map(np.asarray, state), meshes.replicated(mesh))
    return step, (state, meshes.to_global_batch(batch, mesh), STEPS)


def run_step(model, *arguments, **options):
    step, arguments = prepare_step(model, *arguments, **options)
    after, metrics = step(*arguments)
    return jax.tree.map(np.asarray, (to_trees(after, param_shapes(model)), metrics))


@pytest.fixture(scope='module')
def on_one_device(model, state, waveforms):
    return run_step(model, state, waveforms, 1)


def distance(ours, theirs):
    """Relative L2 distance of each leaf, the largest."""
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return max(np.linalg.norm(a - b) / (np.linalg.norm(b) + 1e-12) for a, b in pairs)


def test_four_devices_give_the_loss_and_gradients_of_one(model, state, waveforms, on_one_device):
    """With SGD at rate 1 the parameters' change is the gradient."""
    one, one_metrics = on_one_device
    four, four_metrics = run_step(model, state, waveforms, 4)
    assert_same_step(state, one, one_metrics, four, four_metrics)


def assert_same_step(state, one, one_metrics, other, other_metrics):
    for name, value in one_metrics.items():
        np.testing.assert_allclose(other_metrics[name], value, rtol=1e-5, err_msg=name)
    gradients = [
        jax.tree.map(lambda new, old: new - old, result.params, state.params)
        for result in (one, other)
    ]
    pairs = zip(*map(jax.tree.leaves, gradients), strict=True)
    scale = np.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(gradients[0])))
    assert max(np.linalg.norm(a - b) for a, b in pairs) / scale < 1e-5
    assert min(np.linalg.norm(leaf) for leaf in jax.tree.leaves(gradients[0])) > 0


def test_rows_in_parts_and_recomputed_blocks_give_the_same(model, state, waveforms, on_one_device):
    """Two devices, their two rows one after the other, the insides of blocks computed anew."""
    frugal = Music2Latent(dataclasses.replace(model.config, remat=True))
    result, metrics = run_step(frugal, state, waveforms, 2, accumulate=2)
    assert_same_step(state, *on_one_device, result, metrics)


def test_strips_give_the_same(model, state, waveforms, on_one_device, in_strips):
    frugal = Music2Latent(dataclasses.replace(model.config, remat=True))
    result, metrics = run_step(frugal, state, waveforms, 2)
    assert_same_step(state, *on_one_device, result, metrics)


def test_a_gradient_that_is_not_finite_changes_nothing_but_the_counts(model, state, waveforms):
    broken = waveforms.copy()
    broken[2, 500] = np.nan
    skipped, metrics = run_step(model, state, broken, 1)
    assert not np.isfinite(metrics['loss'])
    assert (metrics['skipped_updates'], metrics['skipped_in_row']) == (1, 1)
    counts = {'step': state.step + 1, 'skipped': 1, 'skipped_in_row': 1}
    for ours, expected in zip(
        jax.tree.leaves(skipped), jax.tree.leaves(state.replace(**counts)), strict=True
    ):
        np.testing.assert_array_equal(ours, expected)
    # The next good batch is the fifth, but the fourth update.
    updated, metrics = run_step(model, skipped, waveforms, 1)
    assert (updated.step, updated.skipped, updated.skipped_in_row) == (5, 1, 0)
    assert (metrics['skipped_updates'], metrics['skipped_in_row']) == (1, 0)
    mean = jax.tree.map(lambda old, new: old * 4 / 13 + new * 9 / 13, state.params, updated.params)
    assert distance(updated.ema_params, mean) < 1e-5


def test_a_step_equals_the_loss_written_out(model, state, waveforms, on_one_device):
    """Row by row, without shard_map, with the teacher's output computed first and held constant."""
    config = model.config
    spectrogram = to_spectrogram(jnp.asarray(waveforms), config.spectrogram)
    key = jax.random.fold_in(jax.random.key(7), 3)
    draws = draw(key, jnp.arange(4), spectrogram.shape[1:], model, CONSISTENCY.density)
    delta = 10 ** -(1 + 2 * 3 / STEPS)

    def denoise(params, index):
        apply = lambda *x, method: model.apply({'params': params}, *x, method=method)  # noqa: E731
        pyramid = apply(apply(spectrogram, method='encode'), method='pyramid')
        sigma = config.noise.sigma(index)
        noisy = spectrogram + sigma[:, None, None, None] * draws.noise
        return apply(noisy, sigma, pyramid, method='denoise'), sigma

    target, lower = jax.jit(denoise)(state.params, jnp.maximum(draws.index - delta, 0))

    def loss(params):
        output, sigma = denoise(params, draws.index)
        squared = jnp.sum((output - target) ** 2, axis=(1, 2, 3))
        c = 0.00054 * np.sqrt(output[0].size)
        return jnp.mean((jnp.sqrt(squared + c**2) - c) / (sigma - lower))

    value, gradient = jax.jit(jax.value_and_grad(loss))(state.params)
    after, metrics = on_one_device
    np.testing.assert_allclose(metrics['loss'], value, rtol=1e-4)
    np.testing.assert_allclose(metrics['delta'], delta, rtol=1e-5)
    np.testing.assert_allclose(metrics['gradient_norm'], optax.tree.norm(gradient), rtol=1e-4)
    moved = jax.tree.map(lambda old, g: old - g, state.params, gradient)
    scale = optax.tree.norm(gradient)
    pairs = zip(jax.tree.leaves(after.params), jax.tree.leaves(moved), strict=True)
    assert max(np.linalg.norm(a - b) for a, b in pairs) / scale < 1e-4
    # The average at step 3 moves by 1 - min(0.5, 4/13) = 9/13.
    mean = jax.tree.map(lambda old, new: old * 4 / 13 + new * 9 / 13, state.params, after.params)
    assert distance(after.ema_params, mean) < 1e-5
    assert after.step == 4


def test_spectrograms_and_waveforms_train_alike(model, state, waveforms, on_one_device):
    batch = to_spectrogram(waveforms, model.config.spectrogram)
    _, metrics = run_step(model, state, batch, 1)
    for name, value in on_one_device[1].items():
        # The spectrograms of NumPy and XLA are 3.5e-6 apart, and the gradient's norm 1.1e-5.
        tolerance = 5e-5 if 'norm' in name else 1e-5
        np.testing.assert_allclose(metrics[name], value, rtol=tolerance, err_msg=name)


def test_latent_metrics_are_those_of_the_latents(model, state, waveforms, on_one_device):
    spectrogram = to_spectrogram(jnp.asarray(waveforms), model.config.spectrogram)
    encode = jax.jit(functools.partial(model.apply, method='encode'))
    latents = encode({'params': state.params}, spectrogram)
    metrics = on_one_device[1]
    np.testing.assert_allclose(metrics['latent_std'], np.std(latents), rtol=1e-3)
    np.testing.assert_allclose(metrics['latents_saturated'], np.mean(np.abs(latents) > 0.99))


def test_encoder_and_decoder_pass_from_the_auxiliary_loss_to_the_other(
    model, state, waveforms, on_one_device
):
    """Their gradient is a mean of both losses'; the UNet's is that of the consistency loss."""
    weight, share = 2.0, 0.4  # at step 3 of 10, with the end in the middle
    auxiliary = AuxiliarySchedule(weight, end=0.5)
    consistency = dataclasses.replace(CONSISTENCY, auxiliary=auxiliary)
    after, metrics = run_step(model, state, waveforms, 1, consistency=consistency)

    def loss(params):
        spectrogram = to_spectrogram(jnp.asarray(waveforms), model.config.spectrogram)
        latents = model.apply({'params': params}, spectrogram, method='encode')
        activation = model.apply({'params': params}, latents, method='pyramid')[0]
        return auxiliary_loss(activation, spectrogram, 0.5, CONSISTENCY.huber_scale).mean()

    value, alone = jax.jit(jax.value_and_grad(loss))(state.params)
    np.testing.assert_allclose(metrics['auxiliary_loss'], value, rtol=1e-5)
    np.testing.assert_allclose(metrics['loss'], on_one_device[1]['loss'], rtol=1e-6)
    gradient, plain = (
        jax.tree.map(lambda old, new: old - new, state.params, each.params)
        for each in (after, on_one_device[0])
    )
    assert distance(gradient['unet'], plain['unet']) < 1e-3
    for part in ('encoder', 'decoder'):
        expected = jax.tree.map(
            lambda one, other: (1 - share) * one + share * weight * other, plain[part], alone[part]
        )
        assert distance(gradient[part], expected) < 2e-3
        assert distance(gradient[part], plain[part]) > 0.1


def test_silence_trains_without_nan(model, state):
    """All-zero audio at any level, the lowest included: loss and gradients are finite."""
    silence = jnp.zeros((2, model.config.spectrogram.bins, 8, 2))
    key = jax.random.key(0)
    draws = draw(key, jnp.arange(2), silence.shape[1:], model, CONSISTENCY.density)
    draws = type(draws)(jnp.array([0.0, 0.5]), draws.noise)
    loss = lambda p: compute_loss(p, model, silence, draws, 0.1, 0.00054)[0].sum()  # noqa: E731
    value, gradient = jax.jit(jax.value_and_grad(loss))(state.params)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def test_noise_belongs_to_the_global_row(model):
    key, shape = jax.random.key(5), (16, 8, 2)
    whole = draw(key, jnp.arange(4), shape, model, CONSISTENCY.density)
    half = draw(key, jnp.arange(2, 4), shape, model, CONSISTENCY.density)
    np.testing.assert_array_equal(whole.noise[2:], half.noise)
    np.testing.assert_array_equal(whole.index[2:], half.index)


def test_an_indivisible_batch_is_told():
    mesh = meshes.make_mesh()
    meshes.check_batch(8, 2, mesh)
    assert meshes.local_rows(8) == range(8)
    with pytest.raises(
        InputError, match=r'batch_size=6 is not divisible by 4 devices: .* e\.g\. 8'
    ):
        meshes.check_batch(6, 1, mesh)
    with pytest.raises(InputError, match=r"accumulate=3 does not divide a device's 2 rows"):
        meshes.check_batch(8, 3, mesh)


def test_processes_with_different_numbers_of_devices_are_refused():
    devices = [types.SimpleNamespace(process_index=process) for process in (0, 0, 1)]
    mesh = types.SimpleNamespace(devices=np.array(devices), size=3)
    with pytest.raises(InputError, match=r'different numbers of devices \(\[1, 2\]\)'):
        meshes.check_batch(3, 1, mesh)


def count_flops(*arguments, **options):
    step, arguments = prepare_step(*arguments, **options)
    return step.lower(*arguments).cost_analysis()['flops']


@pytest.fixture(scope='module')
def flops(model, state, waveforms):
    return count_flops(model, state, waveforms, 1)


@pytest.mark.parametrize('freeze', ['encoder', 'decoder'])
def test_a_frozen_part_changes_no_other_gradient(
    model, state, waveforms, on_one_device, flops, freeze
):
    """Norms are those of what trains; the backward pass of the rest is not computed."""
    after, metrics = run_step(model, state, waveforms, 1, freeze=freeze)
    gradients = {}
    for part, params in state.params.items():
        ours, plain = (
            jax.tree.map(lambda old, new: old - new, params, result.params[part])
            for result in (after, on_one_device[0])
        )
        if part in FROZEN[freeze]:
            assert not any(np.any(leaf) for leaf in jax.tree.leaves(ours))
        else:
            assert distance(ours, plain) < 1e-3
            gradients[part] = plain
    norm = optax.tree.norm(gradients)
    np.testing.assert_allclose(metrics['gradient_norm'], norm, rtol=1e-4)
    np.testing.assert_allclose(metrics['update_norm'], norm, rtol=1e-4)
    for name in ('loss', 'latent_std'):
        np.testing.assert_allclose(metrics[name], on_one_device[1][name], rtol=1e-6)
    assert count_flops(model, state, waveforms, 1, freeze=freeze) < 0.9 * flops


def test_a_first_stage_needs_no_teacher(model, state, waveforms, on_one_device):
    """At step 3 of 10, before and after its end, against a teacher that is always computed."""
    whole = dataclasses.replace(CONSISTENCY, schedule=StepSchedule(0.0, 0.0))
    references = run_step(model, state, waveforms, 1, consistency=whole), on_one_device
    for part, start, reference in zip((0.5, 0.2), (1.0, 1.35), references, strict=True):
        schedule = DenoisingSchedule(start, start + 2, denoising_part=part)
        staged = dataclasses.replace(CONSISTENCY, schedule=schedule)
        result = run_step(model, state, waveforms, 2, accumulate=2, consistency=staged)
        assert_same_step(state, *reference, *result)

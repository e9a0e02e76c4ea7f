import functools

import jax
import numpy as np
import optax
import pytest

from m2l_jax.interface.errors import InputError
from m2l_jax.interface.settings import build
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.training import mesh as meshes
from m2l_jax.training.config import TrainingConfig
from m2l_jax.training.muon import matrices_of
from m2l_jax.training.state import (
    MuonConfig,
    OptimizerConfig,
    make_optimizer,
    param_shapes,
    ravel,
    start_from,
    unravel,
)
from tests.small_training import make_config

RATE, B1, B2, MOMENTUM = 0.1, 0.9, 0.99, 0.8
SIZE = 320  # of vectors, filled up from 302
PLAIN = (RATE, RATE, 0, B1, B2, 0.99, 0.0)


def random_tree(seed):
    random = np.random.default_rng(seed)
    draw = functools.partial(random.standard_normal, dtype=np.float32)
    return {
        'encoder': {
            'conv_in': {'kernel': draw((3, 3, 2, 4)), 'bias': draw(4)},
            'levels_0_0': {
                'conv_in': {'kernel': draw((3, 2, 4, 5)), 'bias': draw(5)},
                'attention': {'qkv': {'kernel': draw((5, 15))}, 'norm': {'scale': draw(5)}},
            },
        },
        'unet': {'up_cross_0_0': {'kernel': draw((1, 1, 3, 7))}},
    }


def orthogonalised(matrix):
    """Five iterations of Jordan et al. 2024, in float64."""
    x = matrix / np.linalg.norm(matrix)
    for _ in range(5):
        product = x @ x.T
        x = 3.4445 * x + (-4.7750 * product + 2.0315 * product @ product) @ x
    return x


def test_kernels_take_muons_steps_and_all_else_radams():
    params, shape = random_tree(0), (3 * 2 * 4, 5)
    optimizer = make_optimizer(MuonConfig(*PLAIN, momentum=MOMENTUM), 100, params)
    plain = make_optimizer(OptimizerConfig(*PLAIN), 100)
    state, expected = start_from(params, optimizer, SIZE), start_from(params, plain)
    update, plain_update = jax.jit(optimizer.update), jax.jit(plain.update)
    momentum = np.zeros(shape)
    for t in range(1, 9):
        gradient = random_tree(t)
        updates, opt_state = update(ravel(gradient, SIZE), state.opt_state, state.params)
        state = state.replace(opt_state=opt_state)
        moved = unravel(updates, params)
        updates, opt_state = plain_update(ravel(gradient), expected.opt_state, expected.params)
        expected = expected.replace(opt_state=opt_state)
        others = unravel(updates, params)
        for path in (('conv_in', 'kernel'), ('conv_in', 'bias'), ('levels_0_0', 'conv_in', 'bias')):
            ours, theirs = (
                functools.reduce(dict.get, path, each['encoder']) for each in (moved, others)
            )
            np.testing.assert_allclose(ours, theirs, rtol=1e-5)

        new = gradient['encoder']['levels_0_0']['conv_in']['kernel'].reshape(shape)
        momentum = MOMENTUM * momentum + (1 - MOMENTUM) * new
        ahead = MOMENTUM * momentum / (1 - MOMENTUM ** (t + 1))
        ahead += (1 - MOMENTUM) * new / (1 - MOMENTUM**t)
        step = -RATE * 0.2 * np.sqrt(24) * orthogonalised(ahead)
        ours = moved['encoder']['levels_0_0']['conv_in']['kernel'].reshape(shape)
        np.testing.assert_allclose(ours, step, atol=1e-5)
        assert 0.7 < np.sqrt(np.mean(step**2)) / (RATE * 0.2) < 1.2


def test_queries_keys_and_values_are_three_matrices():
    params = random_tree(0)
    optimizer = make_optimizer(MuonConfig(*PLAIN), 100, params)
    vector = ravel(params)
    updates, _ = jax.jit(optimizer.update)(vector, optimizer.init(vector), vector)
    kernel = params['encoder']['levels_0_0']['attention']['qkv']['kernel']
    moved = unravel(updates, params)['encoder']['levels_0_0']['attention']['qkv']['kernel']
    for part in range(3):
        columns = slice(5 * part, 5 * part + 5)
        expected = -RATE * 0.2 * np.sqrt(5) * orthogonalised(kernel[:, columns].astype(float))
        np.testing.assert_allclose(moved[:, columns], expected, atol=1e-5)


def test_the_state_has_the_form_of_radams_and_no_second_moment_for_kernels():
    params = random_tree(0)
    ours, plain = (
        make_optimizer(config, 100, params)
        for config in (MuonConfig(*PLAIN), OptimizerConfig(*PLAIN))
    )
    vector = ravel(params, SIZE)
    first = ours.init(vector)
    assert jax.tree.structure(first) == jax.tree.structure(plain.init(vector))
    _, state = jax.jit(ours.update)(vector, first, vector)
    (moments,) = (part for part in state[1] if isinstance(part, optax.ScaleByAdamState))
    second = unravel(moments.nu, params)
    assert not np.any(second['unet']['up_cross_0_0']['kernel'])
    assert np.all(np.asarray(second['encoder']['conv_in']['kernel']) > 0)


def test_muons_kernels_are_those_of_inner_layers():
    settings = build(TrainingConfig, make_config('.'))
    shapes = param_shapes(Music2Latent(settings.model))
    muons = {
        '/'.join(key.key for key in path)
        for path, _ in jax.tree.leaves_with_path(shapes)
        if matrices_of(path)
    }
    blocks = ('encoder/bottleneck_0', 'decoder/bottleneck_0', 'encoder/levels_1_0')
    assert muons >= {f'{block}/conv_{end}/kernel' for block in blocks for end in ('in', 'out')}
    assert muons >= {
        'encoder/bottleneck_in/kernel',
        'decoder/bottleneck_out/kernel',
        'encoder/downs_0/conv/kernel',
        'unet/ups_0/conv/kernel',
        'unet/down_blocks_0_0/time_shift/kernel',
        'unet/up_cross_0_0/kernel',
        'unet/cross_out/kernel',
    }
    for part in ('encoder', 'decoder', 'unet'):
        assert not muons & {f'{part}/conv_in/kernel', f'{part}/conv_out/kernel'}
    assert not [name for name in muons if 'scale_' in name or 'conditioning' in name]
    assert all(name.endswith('/kernel') for name in muons)


def test_devices_that_share_the_moments_make_the_same_updates():
    params, size = random_tree(0), SIZE
    optimizer = make_optimizer(MuonConfig(*PLAIN), 100, params)
    mesh = meshes.make_mesh(jax.devices()[:4])
    shared = start_from(params, optimizer, size)
    layout = meshes.state_shardings(mesh, shared, shard=True)
    shared, alone = jax.device_put(shared, layout), shared
    assert not layout.opt_state[1][0].mu.is_fully_replicated
    update = jax.jit(optimizer.update, out_shardings=(layout.params, layout.opt_state))
    for seed in (1, 2):
        gradient = ravel(random_tree(seed), size)
        ours, opt_state = update(
            jax.device_put(gradient, layout.params), shared.opt_state, shared.params
        )
        shared = shared.replace(opt_state=opt_state)
        expected, opt_state = optimizer.update(gradient, alone.opt_state, alone.params)
        alone = alone.replace(opt_state=opt_state)
        np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert shared.opt_state[1][0].mu.sharding == layout.opt_state[1][0].mu
    np.testing.assert_allclose(
        shared.opt_state[1][0].mu, alone.opt_state[1][0].mu, rtol=1e-5, atol=1e-7
    )


def test_a_momentum_of_one_is_refused():
    with pytest.raises(InputError, match=r'config\.optimizer\.momentum=1\.0 must be at least 0'):
        MuonConfig(*PLAIN, momentum=1.0)

import importlib.util

import pytest

from m2l_jax.compilation.topologies import CHIPS, open_topology
from m2l_jax.interface.errors import InputError

needs_gpu_compiler = pytest.mark.skipif(
    importlib.util.find_spec('jax_cuda13_plugin') is None,
    reason="the GPU's compiler is not installed: pip install -e '.[cuda]'",
)
needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec('libtpu') is None,
    reason="the TPU's compiler is not installed: pip install -e '.[tpu]'",
)


@needs_compiler
@pytest.mark.parametrize(
    ('name', 'bounds', 'chips', 'hosts'),
    [
        ('v4-8', 'v4:2x2x1', 4, 1),
        ('v4-32', 'v4:2x2x4', 16, 4),
        ('v4:2x2x4', 'v4:2x2x4', 16, 4),
        ('v4-512', 'v4:4x8x8', 256, 64),
        ('v5e-4', 'v5e:2x2', 4, 1),
        ('v5litepod-16', 'v5e:4x4', 16, 4),
        ('v5p-8', 'v5p:2x2x1', 4, 1),
        ('v6e:2x4', 'v6e:2x4', 8, 2),
    ],
)
def test_slices_have_the_chips_that_their_names_say(name, bounds, chips, hosts):
    topology = open_topology(name)
    assert topology.name == bounds
    assert topology.chip is CHIPS[bounds.partition(':')[0]]
    assert (len(topology.devices), topology.hosts) == (chips, hosts)


@needs_gpu_compiler
@pytest.mark.parametrize(
    ('name', 'full_name', 'gpus', 'machines'),
    [
        ('h100', 'h100:1x1', 1, 1),
        ('h200:8', 'h200:1x8', 8, 1),
        ('a100:2x8', 'a100:2x8', 16, 2),
    ],
)
def test_gpus_are_as_many_as_their_names_say(name, full_name, gpus, machines):
    topology = open_topology(name)
    assert topology.name == full_name
    assert topology.chip is CHIPS[full_name.partition(':')[0]]
    assert (len(topology.devices), topology.hosts) == (gpus, machines)
    assert {device.platform for device in topology.devices} == {'gpu'}


@pytest.mark.parametrize(
    'name',
    [
        'v9-8',
        'v4',
        'v4-9',
        'v4-10',
        'v4:2x2',
        'v5e:2x2x1',
        'v6e-x',
        '',
        'h100-8',
        'h100:0',
        'h100:x8',
        'b200',
    ],
)
def test_unknown_slices_are_refused_with_the_known_ones(name):
    with pytest.raises(
        InputError, match=rf'--topology={name} is not known: use one of v4-8 .*v6e-4.*h100:8'
    ):
        open_topology(name)


@needs_compiler
def test_bounds_that_the_compiler_refuses_are_told_with_its_reason():
    with pytest.raises(InputError, match=r'v5e:3x3 is refused by the compiler .*not divisible'):
        open_topology('v5e:3x3')


@pytest.mark.parametrize(('name', 'extra'), [('v4-8', 'tpu'), ('h100:8', 'cuda')])
def test_a_missing_compiler_is_told(monkeypatch, name, extra):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(InputError, match=rf"compiler is not installed: pip .*'\.\[{extra}\]'"):
        open_topology(name)

import dataclasses
import importlib.util

import jax
import pytest

from benchmarks import operations
from m2l_jax.compilation import fitting
from m2l_jax.compilation.report import Report
from m2l_jax.compilation.topologies import CHIPS, Topology
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.settings import build
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.model.config import ModelConfig
from tests.small_training import make_config

FITS = Report(
    *('train', 'v5e:2x2', 4, 1, 2, 2, 16 << 30, 1, 1, 1, 3, 1.0, 1.0, None, [], 1.0, None),
    *(1.0, 0.0, 0.0, ()),
)


@pytest.fixture
def four_chips(monkeypatch):
    """A slice of fake CPU devices, so that nothing needs the TPU's compiler."""
    topology = Topology('v5e:2x2', CHIPS['v5e'], jax.devices())
    monkeypatch.setattr(fitting, 'open_topology', lambda name: topology)


def run_out_of_memory_above(rows, monkeypatch):
    """As the compiler does it: 1 GB and 2 GB more a row, of 15.75 GB."""
    compiled = []

    def compile_program(program, topology, options):
        compiled.append(program.rows_per_chip)
        if program.rows_per_chip > rows:
            raise jax.errors.JaxRuntimeError(
                'RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory '
                f'space hbm. Used {1 + 2 * program.rows_per_chip}.00G of 15.75G hbm. Exceeded'
            )
        return FITS

    monkeypatch.setattr(fitting, 'compile_program', compile_program)
    return compiled


def test_a_batch_that_does_not_fit_is_told_with_the_largest_that_does(four_chips, monkeypatch):
    compiled = run_out_of_memory_above(6, monkeypatch)
    config = make_config('').unlock()
    config.data.batch_size = 64
    expected = (
        r'config\.data\.batch_size=64 does not fit on v5e:2x2: 16 crops a chip need 35\.43 GB of '
        r'16\.91 GB; 6 fit, config\.data\.batch_size=24, or set config\.model\.remat=True'
    )
    with pytest.raises(InputError, match=expected):
        fitting.compile_config(config, 'v5e-4')
    assert compiled == [16, 7, 6]


def test_temporaries_that_do_not_fit_are_told_with_the_arguments(four_chips, monkeypatch):
    def fail(program, topology, options):
        raise jax.errors.JaxRuntimeError(
            'RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO '
            'temporaries (23.84G) exceeds available HBM (15.75G).'
        )

    monkeypatch.setattr(fitting, 'compile_program', fail)
    # 25.60 GB of temporaries, and less than 1 MB of state.
    with pytest.raises(InputError, match=r'2 crops a chip need 25\.60 GB of 16\.91 GB; not even 1'):
        fitting.compile_config(make_config(''), 'v5e-4')


def test_parts_of_an_accumulation_stay_whole(four_chips, monkeypatch):
    compiled = run_out_of_memory_above(6, monkeypatch)
    config = make_config('').unlock()
    config.data.batch_size = 64
    config.train.accumulate = 4
    with pytest.raises(InputError, match='4 fit, '):
        fitting.compile_config(config, 'v5e-4')
    assert compiled == [16, 4]


def test_a_model_too_large_for_any_batch_is_told(four_chips, monkeypatch):
    run_out_of_memory_above(0, monkeypatch)
    with pytest.raises(InputError, match='not even 1 fit'):
        fitting.compile_config(make_config(''), 'v5e-4')


def test_a_batch_that_cannot_be_shared_out_is_refused(four_chips):
    config = make_config('').unlock()
    config.data.batch_size = 6
    with pytest.raises(InputError, match=r'batch_size=6 is not divisible by 4 devices'):
        fitting.compile_config(config, 'v5e-4')


def test_a_chunk_that_does_not_fit_is_told(four_chips, monkeypatch):
    run_out_of_memory_above(0, monkeypatch)
    with pytest.raises(InputError, match=r'a chunk of 5 s does not fit: encode needs .*--seconds'):
        fitting.compile_config(make_config(''), 'v5e-4', 'encode', seconds=5.0)


@pytest.mark.parametrize('what', ['encode', 'decode'])
def test_chips_that_share_chunks_send_each_other_nothing(four_chips, what):
    report = fitting.compile_config(make_config(''), 'v5e-4', what, seconds=1.0)
    assert (report.chips, report.rows_per_chip, report.collectives) == (4, 1, [])


def test_a_program_larger_than_a_gpu_is_refused_though_it_compiles(monkeypatch):
    topology = Topology('h100:1x4', CHIPS['h100'], jax.devices())
    monkeypatch.setattr(fitting, 'open_topology', lambda name: topology)
    gigabyte, options = 10**9, []

    def compile_program(program, topology, compiler_options):
        options.append(compiler_options)
        needed = (1 + 10 * program.rows_per_chip) * gigabyte
        return dataclasses.replace(FITS, memory=topology.chip.memory, needed=needed)

    monkeypatch.setattr(fitting, 'compile_program', compile_program)
    config = make_config('').unlock()
    config.data.batch_size = 32
    expected = r'8 crops a chip need 81\.00 GB of 63\.71 GB; 6 fit, config\.data\.batch_size=24'
    with pytest.raises(InputError, match=expected):
        fitting.compile_config(config, 'h100:4')
    assert options[0] == {'xla_gpu_autotune_level': 0}


def test_other_failures_of_the_compiler_are_told(four_chips, monkeypatch):
    def fail(*arguments):
        raise jax.errors.JaxRuntimeError('INTERNAL: of some kind\nand more')

    monkeypatch.setattr(fitting, 'compile_program', fail)
    with pytest.raises(InputError, match=r'the compiler failed: INTERNAL: of some kind$'):
        fitting.compile_config(make_config(''), 'v5e-4')


@pytest.mark.skipif(
    importlib.util.find_spec('libtpu') is None,
    reason="the TPU's compiler is not installed: pip install -e '.[tpu]'",
)
def test_a_training_compiles_for_a_tpu():
    config = make_config('')
    model = Music2Latent(build(ModelConfig, config.model))
    shapes = jax.eval_shape(model.init_params, jax.random.key(0))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    report = fitting.compile_config(config, 'v4-8')
    assert (report.chips, report.hosts, report.rows_per_chip) == (4, 1, 2)
    (reduced,) = report.collectives
    assert reduced.kind == 'all-reduce'
    # Every gradient once; biases that are added to the same sum have one between them.
    assert 0.997 * 4 * parameters < reduced.bytes <= 4 * (parameters + 4)
    # Parameters, two moments and the average, at least.
    assert report.arguments > 4 * 4 * parameters
    assert report.temporaries < report.needed < report.memory == 32 << 30
    assert 0 < report.roofline_seconds < 1
    assert report.kernels is None


@pytest.mark.skipif(
    importlib.util.find_spec('jax_cuda13_plugin') is None,
    reason="the GPU's compiler is not installed: pip install -e '.[cuda]'",
)
def test_a_training_compiles_for_gpus():
    config = make_config('')
    report = fitting.compile_config(config, 'h100:2')
    assert (report.chips, report.hosts, report.rows_per_chip) == (2, 1, 4)
    assert report.kernels.counts['convolution'] > 50
    assert report.accessed == sum(report.kernels.traffic.values()) > report.arguments
    assert report.launch_seconds == 4e-6 * sum(report.kernels.counts.values())
    assert sum(kind.count for kind in report.collectives) >= 1
    model = build(ModelConfig, config.model)
    crop = operations.training_step(model, config.data.crop_frames)
    assert report.flops == pytest.approx(4 * crop, rel=0.03)
    assert report.fitting_rows > 4

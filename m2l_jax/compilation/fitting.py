"""Compiles the programs of a config for absent chips; finds a batch that fits."""

import dataclasses
import re

import jax
import ml_collections

from m2l_jax.compilation.programs import Program, codec_program, train_program
from m2l_jax.compilation.report import Report, compile_program
from m2l_jax.compilation.topologies import Topology, open_topology
from m2l_jax.interface.errors import InputError, first_line
from m2l_jax.interface.settings import build
from m2l_jax.training import mesh as meshes
from m2l_jax.training.config import TrainingConfig

_UNITS = {'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30}
_SIZE = r'([\d.]+)([KMG])'
# Messages of a compiler out of memory, and whether their sizes include the arguments.
_EXCEEDED = (
    # "Ran out of memory in memory space hbm. Used 35.21G of 30.75G hbm."
    (re.compile(rf'Used {_SIZE} of {_SIZE} hbm'), True),
    # "the total memory required for HLO temporaries (23.84G) exceeds available HBM (15.75G)"
    (re.compile(rf'HLO temporaries \({_SIZE}\) exceeds available HBM \({_SIZE}\)'), False),
)


def compile_config(
    config: ml_collections.ConfigDict,
    topology_name: str,
    what: str = 'train',
    seconds: float = 60.0,
    chunks: int = 1,
    effort: float = -1.0,
) -> Report:
    """Compiles a program of a config for chips that need not be there.

    Args:
      config: as for training; `data.path` may be empty.
      topology_name: e.g. 'v4-32', 'v4:2x2x4' or 'h100:8'.
      what: 'train', 'encode' or 'decode'.
      seconds: of audio in a chunk, for the codec.
      chunks: that a chip encodes or decodes together.
      effort: of the compiler for TPUs, from -1 to 1.

    Raises:
      InputError: for unknown chips, a batch that they cannot share, or a program that does not fit
        into their memory; it names a batch that does.
    """
    topology = open_topology(topology_name)
    settings = build(TrainingConfig, _with_data(config))
    mesh = meshes.make_mesh(topology.devices)
    options: dict[str, float] = {'exec_time_optimization_effort': float(effort)}
    if topology.chip.platform == 'cuda':
        options = {'xla_gpu_autotune_level': 0}  # without a GPU, nothing can be timed
    if what == 'train':
        return _compile_train(settings, topology, mesh, options)
    multiple = settings.model.time_downsampling
    spectrogram = settings.model.spectrogram
    frames = round(seconds * spectrogram.sample_rate / spectrogram.hop) // multiple * multiple
    if frames < multiple:
        raise InputError(f'--seconds={seconds} is too short for a latent vector')
    program = codec_program(what, settings, mesh, frames, chunks)
    report, used, limit = _try(program, topology, options)
    if report is None:
        size = f'a chunk of {seconds:g} s does' if chunks == 1 else f'{chunks} of {seconds:g} s do'
        lower = 'lower --seconds' if chunks == 1 else 'lower --chunks or --seconds'
        raise InputError(
            f'{size} not fit: {what} needs {used / 1e9:.2f} GB of a '
            f"chip's {limit / 1e9:.2f} GB on {topology.name}: {lower}"
        )
    return report


def _with_data(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config with some path to data; what is compiled depends on none."""
    if config.data.path or config.data.mix:
        return config
    named = config.copy_and_resolve_references()
    with named.unlocked():
        named.data.path = '.'
    return named


def _compile_train(
    settings: TrainingConfig, topology: Topology, mesh: jax.sharding.Mesh, options: dict
) -> Report:
    program = train_program(settings, mesh)
    report, used, limit = _try(program, topology, options)
    if report is not None:
        return report
    # The memory grows about in proportion to the crops, but for the state.
    state = meshes.bytes_per_device(program.arguments[0])
    parts = settings.train.accumulate
    share = max(0.0, (limit - state) / (used - state))
    rows = int(program.rows_per_chip * share) // parts * parts
    while rows:
        data = dataclasses.replace(settings.data, batch_size=rows * mesh.size)
        smaller = train_program(dataclasses.replace(settings, data=data), mesh)
        if _try(smaller, topology, options)[0] is not None:
            break
        rows -= parts
    batch = f'config.data.batch_size={rows * mesh.size}'
    fitting = f'{rows} fit, {batch}' if rows else f'not even {parts} fit'
    remedy = '' if settings.model.remat else ', or set config.model.remat=True'
    raise InputError(
        f'config.data.batch_size={settings.data.batch_size} does not fit on {topology.name}: '
        f'{program.rows_per_chip} crops a chip need {used / 1e9:.2f} GB of {limit / 1e9:.2f} GB; '
        f'{fitting}{remedy}'
    )


def _try(program: Program, topology: Topology, options: dict) -> tuple[Report | None, float, float]:
    """The program's report, or None and the bytes needed and available on a chip.

    Raises:
      InputError: if the compiler fails for another reason than memory.
    """
    try:
        report = compile_program(program, topology, options)
        if report.needed > report.memory:  # the compiler for GPUs does not look
            return None, report.needed, report.memory
        return report, 0, 0
    except jax.errors.JaxRuntimeError as error:
        for pattern, has_arguments in _EXCEEDED:
            if match := pattern.search(str(error)):
                used, used_unit, limit, limit_unit = match.groups()
                arguments = 0 if has_arguments else meshes.bytes_per_device(program.arguments)
                used_bytes = float(used) * _UNITS[used_unit] + arguments
                return None, used_bytes, float(limit) * _UNITS[limit_unit]
        raise InputError(f'the compiler failed: {first_line(error)}') from error

"""From a config and a slice's name to what its program needs, or how much of it would fit."""

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
# "Ran out of memory in memory space hbm. Used 35.21G of 30.75G hbm."
_USED = re.compile(rf'Used {_SIZE} of {_SIZE} hbm')
# "the total memory required for HLO temporaries (23.84G) exceeds available HBM (15.75G)"
_TEMPORARIES = re.compile(rf'HLO temporaries \({_SIZE}\) exceeds available HBM \({_SIZE}\)')


def compile_config(
    config: ml_collections.ConfigDict,
    topology_name: str,
    what: str = 'train',
    seconds: float = 60.0,
    effort: float = -1.0,
) -> Report:
    """Compiles a program of a config for a slice that need not be there.

    Args:
      config: as for training; `data.path` may be empty.
      topology_name: e.g. 'v4-32' or 'v4:2x2x4'.
      what: 'train', 'encode' or 'decode'.
      seconds: of audio in a chunk, for the codec.
      effort: of the compiler, from -1 to 1.

    Raises:
      InputError: for an unknown slice, a batch that does not go into it, or a program that does not
        fit into its memory, with a batch that does.
    """
    topology = open_topology(topology_name)
    settings = build(TrainingConfig, _with_data(config))
    mesh = meshes.make_mesh(topology.devices)
    options = {'exec_time_optimization_effort': float(effort)}
    if what == 'train':
        return _compile_train(settings, topology, mesh, options)
    multiple = settings.model.time_downsampling
    spectrogram = settings.model.spectrogram
    frames = round(seconds * spectrogram.sample_rate / spectrogram.hop) // multiple * multiple
    if frames < multiple:
        raise InputError(f'--seconds={seconds} is too short for a latent vector')
    program = codec_program(what, settings, mesh, frames)
    try:
        return compile_program(program, topology, options)
    except jax.errors.JaxRuntimeError as error:
        used, limit = _exceeded(error, program)
        raise InputError(
            f'a chunk of {seconds:g} s does not fit: {what} needs {used / 1e9:.2f} GB of a '
            f"chip's {limit / 1e9:.2f} GB on {topology.name}: lower --seconds"
        ) from None


def _with_data(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config with some path: what is compiled depends on no data."""
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
    try:
        return compile_program(program, topology, options)
    except jax.errors.JaxRuntimeError as error:
        used, limit = _exceeded(error, program)
    # What is needed grows about in proportion to the crops, but for the state.
    state = meshes.bytes_per_device(program.arguments[0])
    share = max(0.0, (limit - state) / (used - state))
    fits = _find_fitting(settings, topology, mesh, options, int(program.rows_per_chip * share))
    remedy = '' if settings.model.remat else ', or set config.model.remat=True'
    raise InputError(
        f'config.data.batch_size={settings.data.batch_size} does not fit on {topology.name}: '
        f'{program.rows_per_chip} crops a chip need {used / 1e9:.2f} GB of {limit / 1e9:.2f} GB; '
        + (
            f'{fits} fit, config.data.batch_size={fits * mesh.size}{remedy}'
            if fits
            else f'not even {settings.train.accumulate} fit{remedy}'
        )
    )


def _find_fitting(
    settings: TrainingConfig,
    topology: Topology,
    mesh: jax.sharding.Mesh,
    options: dict,
    rows: int,
) -> int:
    """A number of crops a chip that compiles, tried from `rows` downwards; 0 if none does."""
    parts = settings.train.accumulate
    rows = rows // parts * parts
    while rows:
        data = dataclasses.replace(settings.data, batch_size=rows * mesh.size)
        smaller = train_program(dataclasses.replace(settings, data=data), mesh)
        try:
            compile_program(smaller, topology, options)
        except jax.errors.JaxRuntimeError as error:
            _exceeded(error, smaller)
            rows -= parts
        else:
            return rows
    return 0


def _exceeded(error: jax.errors.JaxRuntimeError, program: Program) -> tuple[float, float]:
    """Bytes that were needed and that there are; another error of the compiler is raised again."""
    whole, temporaries = _USED.search(str(error)), _TEMPORARIES.search(str(error))
    match = whole or temporaries
    if match is None:
        raise InputError(f"the TPU's compiler failed: {first_line(error)}") from error
    used, used_unit, limit, limit_unit = match.groups()
    arguments = 0 if whole else meshes.bytes_per_device(program.arguments)
    return float(used) * _UNITS[used_unit] + arguments, float(limit) * _UNITS[limit_unit]

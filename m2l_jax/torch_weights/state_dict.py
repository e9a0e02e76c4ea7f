"""Converts parameters to the PyTorch package's state dict and back, exactly."""

import itertools
from collections.abc import Mapping

import numpy as np

from m2l_jax.interface.errors import InputError, first_line
from m2l_jax.model.autoencoder import Params
from m2l_jax.model.config import ModelConfig
from m2l_jax.torch_weights.names import name_table, tensor_shapes, unused_tensors

StateDict = dict[str, np.ndarray]

_MOST_NAMES = 6


def to_state_dict(params: Params, config: ModelConfig) -> StateDict:
    """Names and lays out parameters as the package does, in float32; unused tensors are zero.

    Raises:
      InputError: if the package cannot build a model of these sizes.
    """
    _check_representable(config)
    tensors = {}
    for entry in name_table(config):
        parameter = params
        for key in entry.path:
            parameter = parameter[key]
        array = np.asarray(parameter, np.float32)
        tensors[entry.tensor] = np.ascontiguousarray(entry.to_torch(array))
    for name, shape in unused_tensors(config):
        tensors[name] = np.zeros(shape, np.float32)
    return tensors


def from_state_dict(tensors: Mapping[str, np.ndarray], config: ModelConfig) -> Params:
    """The inverse of `to_state_dict`.

    Raises:
      InputError: if tensors are missing, unknown, or of another shape; it names them.
    """
    check_tensors(tensors, config)
    params: Params = {}
    for entry in name_table(config):
        branch = params
        for key in entry.path[:-1]:
            branch = branch.setdefault(key, {})
        branch[entry.path[-1]] = np.ascontiguousarray(entry.from_torch(tensors[entry.tensor]))
    return params


def check_tensors(tensors: Mapping[str, np.ndarray], config: ModelConfig) -> None:
    """Raises an InputError that lists tensors missing, unknown, or of another shape."""
    _check_plausible(tensors, config)
    try:
        expected = tensor_shapes(config)
    except (ValueError, TypeError, OverflowError) as error:  # no array can be so large
        raise InputError(f'no model has the recorded sizes: {first_line(error)}') from None
    unused = {name for name, _ in unused_tensors(config)}
    problems = {
        'missing': sorted(expected.keys() - unused - tensors.keys()),
        'unknown': sorted(tensors.keys() - expected.keys()),
        'of another shape': [
            f'{name} {tuple(tensors[name].shape)} instead of {shape}'
            for name, shape in sorted(expected.items())
            if name in tensors and tuple(tensors[name].shape) != shape
        ],
    }
    lines = []
    for kind, names in problems.items():
        more = f' and {len(names) - _MOST_NAMES} more' if len(names) > _MOST_NAMES else ''
        lines += [f'{kind}: {", ".join(names[:_MOST_NAMES])}{more}'] if names else []
    if lines:
        raise InputError(f'the tensors are not those of a Music2Latent model; {"; ".join(lines)}')


def _check_plausible(tensors: Mapping[str, np.ndarray], config: ModelConfig) -> None:
    """Refuses sizes far beyond the tensors': tracing such a model takes minutes and gigabytes."""
    blocks = config.encoder_blocks + config.decoder_blocks + 2 * config.unet_blocks
    blocks = len(config.widths) * blocks + 2 * config.bottleneck_blocks
    widths = (
        *config.widths,
        *itertools.chain(*config.downsampling),
        config.feature_channels,
        config.bottleneck_channels,
        config.latent_channels,
        config.embedding_channels,
        config.spectrogram.bins,
    )
    numbers = sum(tensor.size for tensor in tensors.values())
    if blocks > len(tensors) or max(widths) > numbers:
        raise InputError(
            f'the recorded sizes, {blocks} blocks of up to {max(widths)} channels, are beyond the '
            f'{len(tensors)} tensors of {numbers} numbers: get the file again from its authors'
        )


def _check_representable(config: ModelConfig) -> None:
    for name in ('frequency_scaling', 'cross_connections'):
        if not getattr(config, name):
            raise InputError(
                f'the PyTorch package has no model with model.{name}=False: write a folder instead'
            )
    if config.encoder_blocks != config.decoder_blocks:
        raise InputError(
            'the PyTorch package has as many blocks a level in its decoder as in its encoder: '
            f'model.encoder_blocks={config.encoder_blocks} and '
            f'model.decoder_blocks={config.decoder_blocks} cannot be converted'
        )
    if config.spectrogram.window != 4 * config.spectrogram.hop:
        raise InputError(
            'the PyTorch package has a window of four hops: model.spectrogram.window='
            f'{config.spectrogram.window} and hop={config.spectrogram.hop} cannot be converted'
        )
    for factors in config.downsampling:
        if factors not in ((4, 1), (2, 2)):
            raise InputError(
                f'the PyTorch package downsamples by (4, 1) or (2, 2): {factors} of '
                'model.downsampling cannot be converted'
            )

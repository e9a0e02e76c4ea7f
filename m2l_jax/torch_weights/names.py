"""The one table of names: each parameter here, and its tensor in the PyTorch package.

Both directions of the conversion use this table, so neither knows a name that the other lacks.
"""

import dataclasses
import functools
import types
from collections.abc import Iterator, Mapping

import jax
import numpy as np

from m2l_jax.consistency.keys import random_key
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.model.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Correspondence:
    """A parameter under its two names: keys into the nested parameters, and the package's name."""

    path: tuple[str, ...]  # ('encoder', 'conv_in', 'kernel')
    tensor: str  # encoder.conv_inp.weight

    def to_torch(self, parameter: np.ndarray) -> np.ndarray:
        """The array in the package's layout."""
        if self.path[-1] == 'kernel':  # [..., in, out] to [out, in, ...]
            return np.moveaxis(parameter, (-1, -2), (0, 1))
        if self.path[-1] == 'gain':
            return parameter.reshape(1, 1, -1, 1)
        return parameter

    def from_torch(self, tensor: np.ndarray) -> np.ndarray:
        """The inverse of `to_torch`."""
        if self.path[-1] == 'kernel':
            return np.moveaxis(tensor, (0, 1), (-1, -2))
        if self.path[-1] == 'gain':
            return tensor.reshape(-1)
        return tensor


def name_table(config: ModelConfig) -> list[Correspondence]:
    """Lists every parameter of a model of these sizes, once."""
    prefixes = dict(_modules(config))
    table = []
    for path in _parameter_shapes(config):
        if path[-1] == 'gain':
            tensor = 'encoder.gain.scale'
        elif path[-2] == 'qkv':  # torch's attention keeps this layer's arrays as its own
            part = 'weight' if path[-1] == 'kernel' else 'bias'
            tensor = f'{prefixes[path[:-1]]}.in_proj_{part}'
        else:
            part = 'bias' if path[-1] == 'bias' else 'weight'
            tensor = f'{prefixes[path[:-1]]}.{part}'
        table.append(Correspondence(path, tensor))
    return table


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that the package stores, its unused ones included."""
    shapes = dict(unused_tensors(config))
    for entry in name_table(config):
        # Without memory: only its shape after the change of layout is needed.
        stand_in = np.broadcast_to(np.float32(0), _parameter_shapes(config)[entry.path])
        shapes[entry.tensor] = entry.to_torch(stand_in).shape
    return shapes


def unused_tensors(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Tensors that the package stores and never reads: noise projections of a noiseless stack."""
    width = config.bottleneck_channels
    for block in range(config.bottleneck_blocks):
        prefix = f'decoder.bottleneck_layers.{block}.proj_emb'
        yield f'{prefix}.weight', (width, config.embedding_channels)
        yield f'{prefix}.bias', (width,)


@functools.cache
def _parameter_shapes(config: ModelConfig) -> Mapping[tuple[str, ...], tuple[int, ...]]:
    """Path and shape of every parameter; cached, as tracing a model takes seconds."""
    model = Music2Latent(config)
    # The key is made in the trace too: no program is compiled for it.
    shapes = jax.eval_shape(lambda: model.init_params(random_key(0)))
    leaves, _ = jax.tree_util.tree_flatten_with_path(shapes)
    return types.MappingProxyType(
        {tuple(key.key for key in keys): leaf.shape for keys, leaf in leaves}
    )


def _modules(config: ModelConfig) -> Iterator[tuple[tuple[str, ...], str]]:
    """Path of each layer here, and its name there."""
    for path, prefix in _blocks(config):
        for ours, theirs in _IN_BLOCK.items():
            yield (*path, *ours), f'{prefix}.{theirs}'
    for path, prefix in _layers(config):
        yield path, prefix


# Layers that a residual block may have.
_IN_BLOCK = {
    ('norm_in',): 'norm1',
    ('conv_in',): 'conv1',
    ('norm_out',): 'norm2',
    ('conv_out',): 'conv2',
    ('time_shift',): 'proj_emb',
    ('shortcut',): 'res_conv',
    ('attention', 'norm'): 'att.norm',
    ('attention', 'qkv'): 'att.mha',
    ('attention', 'out'): 'att.mha.out_proj',
}

# Layers that occur once.
_SINGLE = {
    ('encoder', 'conv_in'): 'encoder.conv_inp',
    ('encoder', 'bottleneck_in'): 'encoder.bottleneck_layers.0',
    ('encoder', 'norm_out'): 'encoder.norm_out',
    ('encoder', 'conv_out'): 'encoder.conv_out',
    ('decoder', 'conv_in'): 'decoder.conv_inp',
    ('decoder', 'bottleneck_out'): 'decoder.conv_out_bottleneck',
    ('unet', 'conditioning', 'linear_0'): 'emb_proj.0',
    ('unet', 'conditioning', 'linear_1'): 'emb_proj.2',
    ('unet', 'scale_in', 'hidden', 'linear_0'): 'scale_inp.0',
    ('unet', 'scale_in', 'hidden', 'linear_1'): 'scale_inp.2',
    ('unet', 'scale_in', 'out'): 'scale_inp.4',
    ('unet', 'scale_out', 'hidden', 'linear_0'): 'scale_out.0',
    ('unet', 'scale_out', 'hidden', 'linear_1'): 'scale_out.2',
    ('unet', 'scale_out', 'out'): 'scale_out.4',
    ('unet', 'conv_in'): 'conv_inp',
    ('unet', 'cross_out'): 'conv_decoded',
    ('unet', 'norm_out'): 'norm_out',
    ('unet', 'conv_out'): 'conv_out',
}


def _blocks(config: ModelConfig) -> Iterator[tuple[tuple[str, ...], str]]:
    levels = range(len(config.widths))
    for block in range(config.bottleneck_blocks):
        yield ('encoder', f'bottleneck_{block}'), f'encoder.bottleneck_layers.{block + 1}'
        yield ('decoder', f'bottleneck_{block}'), f'decoder.bottleneck_layers.{block}'
    for level in levels:
        for block in range(config.encoder_blocks):
            number = level * (config.encoder_blocks + 1) + block
            yield ('encoder', f'levels_{level}_{block}'), f'encoder.down_layers.{number}'
        for block in range(config.decoder_blocks):
            number = (levels[-1] - level) * (config.decoder_blocks + 1) + block
            yield ('decoder', f'levels_{level}_{block}'), f'decoder.up_layers.{number}'
        for block in range(config.unet_blocks):
            down, up = _unet_numbers(config, level, block)
            yield ('unet', f'down_blocks_{level}_{block}'), f'down_layers.{down + 1}'
            yield ('unet', f'up_blocks_{level}_{block}'), f'up_layers.{up + 1}'


def _layers(config: ModelConfig) -> Iterator[tuple[tuple[str, ...], str]]:
    """Layers outside of residual blocks."""
    yield from _SINGLE.items()
    deepest = len(config.widths) - 1
    yield ('encoder', f'norms_{deepest}'), 'encoder.prenorm_1d_to_2d'
    for level in range(deepest):  # the passages between `level` and `level + 1`
        down = f'encoder.down_layers.{level * (config.encoder_blocks + 1) + config.encoder_blocks}'
        yield ('encoder', f'norms_{level}'), f'{down}.norm'
        yield ('encoder', f'downs_{level}', 'conv'), f'{down}.c'
        up = (deepest - level) * (config.decoder_blocks + 1) - 1
        yield ('decoder', f'ups_{level}', 'conv'), f'decoder.up_layers.{up}.c'
        down, _ = _unet_numbers(config, level, config.unet_blocks)
        _, up = _unet_numbers(config, level + 1, config.unet_blocks)
        yield ('unet', f'downs_{level}', 'conv'), f'down_layers.{down}.c'
        yield ('unet', f'ups_{level}', 'conv'), f'up_layers.{up}.c'
    for level in range(deepest + 1):
        for block in range(config.unet_blocks):
            down, up = _unet_numbers(config, level, block)
            yield ('unet', f'down_cross_{level}_{block}'), f'down_layers.{down}'
            yield ('unet', f'up_cross_{level}_{block}'), f'up_layers.{up}'


def _unet_numbers(config: ModelConfig, level: int, block: int) -> tuple[int, int]:
    """Index in `down_layers` and `up_layers`: two layers a block, and one after each level."""
    per_level = 2 * config.unet_blocks + 1
    deepest = len(config.widths) - 1
    return level * per_level + 2 * block, (deepest - level) * per_level + 2 * block

"""Infers a model's sizes from the shapes of its PyTorch tensors."""

import re
from collections.abc import Mapping

from m2l_jax.audio.spectrogram import SpectrogramConfig
from m2l_jax.interface.errors import InputError
from m2l_jax.model.config import ModelConfig

Shapes = Mapping[str, tuple[int, ...]]

_FACTORS = {(5, 1): (4, 1), (3, 3): (2, 2)}  # of a downsampling, by its kernel


def infer_config(shapes: Shapes, attention_heads: int = 4) -> ModelConfig:
    """Infers the config of a PyTorch state dict; `check_tensors` then checks every tensor.

    `attention_heads` is the one size that shapes don't show; the released model has 4.

    Raises:
      InputError: if a needed tensor is missing, or sizes contradict each other.
    """
    levels = _levels(shapes, 'down_layers')
    encoder_levels = _levels(shapes, 'encoder.down_layers')
    channels = [_shape(shapes, f'down_layers.{blocks[0]}.conv1.weight', 4)[0] for blocks in levels]
    if any(width % channels[0] for width in channels):
        raise InputError(f'levels of {channels} channels are not multiples of the first one')
    bins = _shape(shapes, 'encoder.gain.scale', 4)[2]
    width, _, _ = _shape(shapes, 'encoder.bottleneck_layers.0.weight', 3)
    encoder_blocks = _same_everywhere(encoder_levels, 'encoder.down_layers')
    return ModelConfig(
        base_channels=channels[0],
        channel_multipliers=tuple(width // channels[0] for width in channels),
        downsampling=tuple(
            _factors(shapes, f'down_layers.{b[-1] + 1}.c.weight') for b in levels[:-1]
        ),
        attention=tuple(f'down_layers.{b[0]}.att.norm.weight' in shapes for b in levels),
        attention_heads=attention_heads,
        encoder_blocks=encoder_blocks,
        decoder_blocks=encoder_blocks,
        unet_blocks=_same_everywhere(levels, 'down_layers'),
        bottleneck_channels=width,
        bottleneck_blocks=sum(
            re.fullmatch(r'decoder\.bottleneck_layers\.\d+\.conv1\.weight', name) is not None
            for name in shapes
        ),
        latent_channels=_shape(shapes, 'encoder.conv_out.weight', 3)[0],
        channels=_shape(shapes, 'conv_inp.weight', 4)[1],
        embedding_channels=_shape(shapes, 'emb_proj.0.weight', 2)[1],
        spectrogram=SpectrogramConfig(window=2 * bins, hop=bins // 2),
    )


def _levels(shapes: Shapes, layers: str) -> list[list[int]]:
    """Numbers of each level's residual blocks; a downsampling, called `c`, ends a level."""
    pattern = re.compile(re.escape(layers) + r'\.(\d+)\.(conv1|c)\.weight')
    found = sorted(
        (int(match[1]), match[2]) for match in map(pattern.fullmatch, shapes) if match is not None
    )
    levels: list[list[int]] = [[]]
    for number, kind in found:
        if kind == 'c':
            levels.append([])
        else:
            levels[-1].append(number)
    if not all(levels):
        raise InputError(f'no tensors {layers}.*.conv1.weight: this is not a Music2Latent model')
    return levels


def _same_everywhere(levels: list[list[int]], layer: str) -> int:
    counts = {len(blocks) for blocks in levels}
    if len(counts) > 1:
        raise InputError(
            f'{layer} has {[len(blocks) for blocks in levels]} blocks at its levels: tensors are '
            'missing, or it is a model that ModelConfig cannot hold'
        )
    return counts.pop()


def _factors(shapes: Shapes, name: str) -> tuple[int, int]:
    kernel = _shape(shapes, name, 4)[2:]
    if kernel not in _FACTORS:
        raise InputError(f'{name} has a kernel of {kernel}: no downsampling of Music2Latent')
    return _FACTORS[kernel]


def _shape(shapes: Shapes, name: str, dimensions: int) -> tuple[int, ...]:
    if name not in shapes:
        raise InputError(f'there is no tensor {name}: this is not a Music2Latent model')
    shape = tuple(shapes[name])
    if len(shape) != dimensions or 0 in shape:
        raise InputError(f'{name} has shape {shape}: this is not a Music2Latent model')
    return shape

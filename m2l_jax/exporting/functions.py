"""Encoding and decoding as functions of arrays alone, of any batch and length.

They are those of `codec.rows`, whose exports need neither this package nor its classes of keys.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from m2l_jax.codec.rows import channel_key, decode_waveforms, encode_waveforms
from m2l_jax.model.autoencoder import Music2Latent, Params

_SEPARATOR = '/'
_PARTS = {'encode': ('encoder',), 'decode': ('decoder', 'unet')}


@dataclasses.dataclass(frozen=True)
class Argument:
    """An argument beside the weights, or the result.

    Attributes:
      name: of the argument.
      shape: with commas between the axes, such as 'b, 64, l', of any `b` and `l` from 1.
      dtype: NumPy's name of the type.
      meaning: for its reader.
    """

    name: str
    shape: str
    dtype: str
    meaning: str


@dataclasses.dataclass(frozen=True)
class Function:
    """A function to export.

    Attributes:
      name: 'encode' or 'decode'.
      call: takes the weights and the arguments, and returns the result.
      weights: float32, by name.
      arguments: beside the weights, in order.
      result: what it returns.
    """

    name: str
    call: Callable[..., jax.Array]
    weights: dict[str, np.ndarray]
    arguments: tuple[Argument, ...]
    result: Argument


def export_functions(model: Music2Latent, params: Params, steps: int) -> tuple[Function, ...]:
    """Encoding and decoding by a model, in `steps` evaluations of it.

    `model.kernels` must be 'xla', for the program to run everywhere.
    """
    config = model.config
    step, reach = config.samples_per_latent, config.spectrogram.reach
    pieces, waveform = (
        ', '.join(map(str, ('b', *config.waveform_shape(f'{step}*l + {beyond}'))))
        for beyond in (2 * reach, reach)
    )
    latents = f'b, {config.latent_channels}, l'
    rate = f'{config.spectrogram.sample_rate} Hz, full scale ±1'
    lengths = Argument('lengths', 'b', 'int32', 'latent vectors of each row; the rest is padding')

    def encode(
        weights: dict[str, Any], pieces: jax.Array, splits: jax.Array, lengths: jax.Array
    ) -> jax.Array:
        return encode_waveforms(model, _nested(weights), pieces, splits, lengths)

    def decode(
        weights: dict[str, Any],
        latents: jax.Array,
        lengths: jax.Array,
        seeds: jax.Array,
        channels: jax.Array,
        positions: jax.Array,
    ) -> jax.Array:
        keys = jax.vmap(channel_key)(seeds, channels)
        rows = latents, keys, positions, lengths, lengths
        return jnp.clip(decode_waveforms(model, _nested(weights), *rows, steps), -1, 1)

    encoded = Argument('latents', latents, 'float32', 'of unit variance on music')
    decoded = Argument('waveform', waveform, 'float32', rate)
    return (
        Function(
            'encode',
            encode,
            _weights_of('encode', params),
            (
                Argument('pieces', pieces, 'float32', f'the two of each row; {rate}'),
                Argument('splits', 'b', 'int32', 'latent vectors of the first piece'),
                lengths,
            ),
            encoded,
        ),
        Function(
            'decode',
            decode,
            _weights_of('decode', params),
            (
                encoded,
                lengths,
                Argument('seeds', 'b', 'uint32', 'of the noise: the same give the same audio'),
                Argument('channels', 'b', 'int32', 'number of the row in its song, from 0'),
                Argument('positions', 'b, l', 'int32', 'place of each vector in its song'),
            ),
            decoded,
        ),
    )


def _weights_of(name: str, params: Params) -> dict[str, np.ndarray]:
    parts = {part: params[part] for part in _PARTS[name]}
    flat = flax.traverse_util.flatten_dict(parts, sep=_SEPARATOR)
    return {path: np.asarray(leaf, np.float32) for path, leaf in sorted(flat.items())}


def _nested(weights: dict[str, Any]) -> Params:
    return flax.traverse_util.unflatten_dict(weights, sep=_SEPARATOR)

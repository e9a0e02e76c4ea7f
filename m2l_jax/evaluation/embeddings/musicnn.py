"""Embeddings by musicnn, networks trained to tag music (Pons & Serra 2019), in JAX.

The weights are those of the Python package `musicnn`, read from its folder without importing it.
"""

import functools
import importlib.util
import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from m2l_jax.evaluation import spectra
from m2l_jax.evaluation.perception.packages import Package, describe_missing
from m2l_jax.interface.devices import standard_jax
from m2l_jax.interface.errors import InputError, first_line

SAMPLE_RATE = 16_000
CHECKPOINTS = ('MSD_musicnn', 'MTT_musicnn')
PATCH_FRAMES = 187  # 3 s, as in training
HOP_FRAMES = 62  # 1 s

_WINDOW, _HOP, _BANDS = 512, 256, 96
_COMPRESSION = 10_000
_VARIANCE_FLOOR = 1e-3  # of TensorFlow's batch normalisation

PACKAGE = Package('musicnn', 'pip install --no-deps musicnn==0.1.0')
NEEDS = (Package('tensorflow', "pip install 'm2l-jax[train]'"), PACKAGE)  # it reads the weights

Weights = Mapping[str, np.ndarray]


class Musicnn:
    """A network with its weights, which embeds patches of 3 s by its penultimate layer.

    The package computes the input in float16, which overflows for loud audio; here it is float32.

    Args:
      checkpoint: one of `CHECKPOINTS`, trained on the Million Song Dataset (MSD) or MagnaTagATune
        (MTT).
      hop_frames: of 16 ms, from a patch to the next.

    Raises:
      InputError: if the package is missing, or its weights cannot be read.
    """

    def __init__(self, checkpoint: str = 'MSD_musicnn', hop_frames: int = HOP_FRAMES):
        self.name = checkpoint
        self.sample_rate = SAMPLE_RATE
        self._hop = hop_frames
        self._weights = read_weights(checkpoint)

    @standard_jax()
    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Embeds `[samples]` at 16 kHz: `[patches, 200]`, float32."""
        patches = cut_patches(log_mel(waveform), self._hop)
        # One at a time: memory is of a patch, and all lengths share a program.
        return np.concatenate([embed_patches(self._weights, patch[None]) for patch in patches])


def read_weights(checkpoint: str) -> dict[str, np.ndarray]:
    """The tensors of a network by TensorFlow's names, without its optimiser's."""
    if reason := describe_missing(NEEDS):
        raise InputError(reason)
    import tensorflow as tf  # takes seconds

    package = importlib.util.find_spec(PACKAGE.module)
    folder = pathlib.Path(next(iter(package.submodule_search_locations)), checkpoint)
    try:
        reader = tf.compat.v1.train.NewCheckpointReader(f'{folder}/')
        names = reader.get_variable_to_shape_map()
        return {name: reader.get_tensor(name) for name in names if 'Adam' not in name}
    except (tf.errors.OpError, ValueError) as error:
        raise InputError(
            f'{folder} has no weights: {PACKAGE.install}: {first_line(error)}'
        ) from error


def log_mel(waveform: np.ndarray) -> np.ndarray:
    """The networks' input, `[samples]` at 16 kHz to `[frames, 96]`, float32, of 16 ms a frame."""
    filters = spectra.mel_filters(SAMPLE_RATE, _WINDOW, _BANDS)
    blocks = spectra.power_blocks(waveform, spectra.hann(_WINDOW), _HOP, centred=True)
    mel = np.concatenate([power @ filters for power in blocks])
    return np.log10(_COMPRESSION * mel + 1).astype(np.float32)


def cut_patches(frames: np.ndarray, hop: int) -> np.ndarray:
    """Cuts `[frames, 96]` to whole patches `[patches, 187, 96]`; less than one is repeated."""
    if len(frames) < PATCH_FRAMES:
        frames = np.resize(frames, (PATCH_FRAMES, frames.shape[1]))
    windows = np.lib.stride_tricks.sliding_window_view(frames, PATCH_FRAMES, axis=0)
    return np.swapaxes(windows[::hop], 1, 2)


@jax.jit
def embed_patches(weights: Weights, patches: jax.Array) -> jax.Array:
    """Penultimate layer of the network, `[N, T, 96]` to `[N, 200]`."""
    normalise = functools.partial(_normalise, weights)
    convolve = functools.partial(_convolve, weights)
    image = normalise(0, patches[..., None])  # [N, T, 96, 1]
    maps = [
        # Tall filters for timbre, long ones for rhythm; the loudest band of each counts.
        jnp.max(normalise(number + 1, convolve(_numbered('conv2d', number), image, padding)), 2)
        for number, padding in enumerate([_along_time(7)] * 2 + ['SAME'] * 3)
    ]
    front = jnp.concatenate(maps, axis=2)  # [N, T, 561]
    layers, below = [front], front
    for number in (5, 6, 7):
        out = convolve(f'conv2d_{number}', below[..., None], _along_time(7))  # [N, T, 1, 64]
        out = normalise(number + 1, out)[:, :, 0]
        below = out if number == 5 else below + out
        layers.append(below)
    every = jnp.concatenate(layers, axis=2)  # [N, T, 753]
    pooled = jnp.stack([jnp.max(every, 1), jnp.mean(every, 1)], axis=2)  # [N, 753, 2]
    pooled = normalise(9, pooled.reshape(len(pooled), -1))
    dense = jnp.matmul(pooled, weights['dense/kernel'], precision='highest')
    return normalise(10, jax.nn.relu(dense + weights['dense/bias']))


def _convolve(weights: Weights, name: str, image: jax.Array, padding) -> jax.Array:
    """Convolution and ReLU, `[N, T, F, C]`."""
    out = jax.lax.conv_general_dilated(
        image,
        weights[f'{name}/kernel'],
        (1, 1),
        padding,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        precision='highest',
    )
    return jax.nn.relu(out + weights[f'{name}/bias'])


def _normalise(weights: Weights, number: int, image: jax.Array) -> jax.Array:
    """Batch normalisation by the averages of training."""
    name = _numbered('batch_normalization', number)
    gain = weights[f'{name}/gamma'] * jax.lax.rsqrt(
        weights[f'{name}/moving_variance'] + _VARIANCE_FLOOR
    )
    return (image - weights[f'{name}/moving_mean']) * gain + weights[f'{name}/beta']


def _numbered(name: str, number: int) -> str:
    return f'{name}_{number}' if number else name


def _along_time(size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Padding that keeps the frames and leaves the bands."""
    return (size // 2, size // 2), (0, 0)

"""Comparison with the PyTorch package, stage by stage, for the same input and noise."""

import contextlib
import dataclasses
import os
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from m2l_jax.audio.spectrogram import to_spectrogram, to_waveform
from m2l_jax.codec.arrays import as_waveform
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.codec.rows import channel_key, decoding_noise
from m2l_jax.codec.weights import locate_weights
from m2l_jax.interface.errors import InputError
from m2l_jax.model.autoencoder import Music2Latent
from m2l_jax.model.config import ModelConfig
from m2l_jax.model.layers import ResBlock
from m2l_jax.torch_weights.conversion import read_torch_model
from m2l_jax.torch_weights.names import name_table
from m2l_jax.torch_weights.reference import random_tensors, reference_network
from m2l_jax.torch_weights.state_dict import from_state_dict

SEED = 0  # of the decoding noise

_LONGEST_SECONDS = 60  # of a chunk
_DECODES = {1: 'decode, 1 step', 3: 'decode, 3 steps'}

Stages = dict[str, np.ndarray]

# Least signal-to-noise ratio in dB by dtype and the beginning of a stage's name.
_TOLERANCES = {
    'float32': {'latents': 95.0, 'denoised': 85.0, 'waveform': 80.0, 'decode': 80.0, '': 90.0},
    'bfloat16': {'latents': 35.0, 'denoised': 25.0, 'waveform': 20.0, 'decode': 20.0, '': 30.0},
}


@dataclasses.dataclass(frozen=True)
class StageResult:
    """Errors of a stage's output against the reference.

    Attributes:
      name: of the stage.
      shape: of its output, channels last.
      max_abs_error: largest absolute difference.
      relative_l2: norm of the difference over that of the reference.
      snr: -20·log₁₀ of `relative_l2`, in dB.
      tolerance: least SNR that passes, in dB.
    """

    name: str
    shape: tuple[int, ...]
    max_abs_error: float
    relative_l2: float
    snr: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """True if the SNR reaches the tolerance; False for NaN."""
        return self.snr >= self.tolerance


def compare_file(
    checkpoint: str | None, audio: str | os.PathLike[str], seconds: float, dtype: str
) -> list[StageResult]:
    """Runs `compare_with_reference` on the beginning of a file.

    Args:
      checkpoint: .pt or .safetensors file or a packaged name; None for random weights at full size.
      audio: any audio file.
      seconds: length of the beginning.
      dtype: of this implementation.
    """
    if checkpoint is None:
        config = ModelConfig()
        tensors = random_tensors(config)
    else:
        config, tensors = read_torch_model(locate_weights(checkpoint))
    if config.audio_channels > 1:
        raise InputError(f'{checkpoint} is a stereo model: the PyTorch package has only mono ones')
    rate = config.spectrogram.sample_rate
    waveform = as_waveform(audio, rate)[:, : round(seconds * rate)]
    return compare_with_reference(config, tensors, waveform, dtype)


def compare_with_reference(
    config: ModelConfig,
    tensors: Mapping[str, np.ndarray],
    waveform: np.ndarray,
    dtype: str = 'float32',
) -> list[StageResult]:
    """Runs both models on the audio; each stage gets the outputs of its own model.

    Args:
      config: sizes of the model.
      tensors: its weights by the package's names.
      waveform: `[channels, samples]`, at the model's rate.
      dtype: of this implementation; the reference computes in float32.

    Raises:
      InputError: if the package is not installed, or the audio is too short or too long.
    """
    params = from_state_dict(tensors, config)
    codec = EncoderDecoder.from_params(Music2Latent(config), params, dtype=dtype)
    seconds = waveform.shape[1] / config.spectrogram.sample_rate
    if waveform.shape[1] < codec.least_samples or seconds > _LONGEST_SECONDS:
        raise InputError(
            f'{seconds:.2f} s of audio cannot be compared: '
            f'{codec.least_samples} samples to {_LONGEST_SECONDS} s can'
        )
    with jax.default_matmul_precision('highest'):  # also on TPUs and GPUs
        ours = _run_ours(codec, waveform)
    with reference_network(config, tensors) as network:
        theirs = _run_reference(network, config, waveform)
    return [measure(name, ours[name], theirs[name], dtype) for name in theirs]


def describe_stages(stages: Sequence[StageResult]) -> str:
    """Formats a table with a row for each stage."""
    shapes = ['×'.join(map(str, stage.shape)) for stage in stages]
    form = f'{{:<{max(len(stage.name) for stage in stages)}}}  {{:<{max(map(len, shapes))}}}  '
    form += '{:>13}  {:>11}  {:>6}  {:>8}  {}'
    rows = [form.format('stage', 'shape', 'max abs error', 'relative L2', 'SNR dB', 'at least', '')]
    for stage, shape in zip(stages, shapes, strict=True):
        errors = (f'{stage.max_abs_error:.1e}', f'{stage.relative_l2:.1e}', f'{stage.snr:.1f}')
        verdict = 'ok' if stage.passed else 'TOO FAR'
        rows.append(form.format(stage.name, shape, *errors, f'{stage.tolerance:.0f}', verdict))
    return '\n'.join(map(str.rstrip, rows))


def measure(name: str, ours: np.ndarray, reference: np.ndarray, dtype: str) -> StageResult:
    """Computes the errors of a stage in float64."""
    reference = np.asarray(reference, np.float64)
    if ours.shape != reference.shape:
        raise ValueError(f'{name}: {ours.shape} here, {reference.shape} in the reference')
    difference = np.asarray(ours, np.float64) - reference
    norm = np.linalg.norm(difference)
    relative = float(norm / np.linalg.norm(reference)) if norm else 0.0
    tolerances = _TOLERANCES[dtype]
    kind = next(kind for kind in tolerances if name.startswith(kind))
    return StageResult(
        name,
        ours.shape,
        float(np.max(np.abs(difference))),
        relative,
        float(-20 * np.log10(relative)) if relative else np.inf,
        tolerances[kind],
    )


def _run_ours(codec: EncoderDecoder, waveform: np.ndarray) -> Stages:
    config, model, params = codec.config, codec.model, {'params': codec.params}
    whole = (waveform.shape[1] - codec.least_samples) // codec.samples_per_latent + 1
    frames = whole * config.time_downsampling
    stages = {
        'spectrogram': to_spectrogram(jnp.asarray(waveform), config.spectrogram)[:, :, :frames]
    }

    @jax.jit
    def encode(params, spectrogram):
        return model.apply(
            params,
            spectrogram,
            method='encode',
            capture_intermediates=lambda module, _: isinstance(module, ResBlock),
            mutable='intermediates',
        )

    latents, captured = encode(params, stages['spectrogram'])
    blocks = captured['intermediates']['encoder']
    for level in range(len(config.widths)):
        name = f'levels_{level}_{config.encoder_blocks - 1}'
        stages[f'encoder level {level}'] = blocks[name]['__call__'][0]
    stages['latents'] = latents

    pyramid = jax.jit(lambda p, z: model.apply(p, z, method='pyramid'))(params, latents)
    stages |= {f'pyramid level {level}': array for level, array in enumerate(pyramid)}
    noise = _noise(config, len(waveform), frames, step=0)
    sigma = jnp.full(len(waveform), config.noise.sigma_max)
    denoise = jax.jit(lambda p, x, s, c: model.apply(p, x, s, c, method='denoise'))
    stages['denoised'] = denoise(params, noise * config.noise.sigma_max, sigma, pyramid)
    stages['waveform'] = to_waveform(stages['denoised'], config.spectrogram)
    scaled = codec.encode(waveform, max_batch_size=len(waveform))
    for steps, name in _DECODES.items():
        stages[name] = codec.decode(scaled, steps, max_batch_size=len(waveform), seed=SEED)
    return {name: np.asarray(array, np.float32) for name, array in stages.items()}


def _run_reference(network: Any, config: ModelConfig, waveform: np.ndarray) -> Stages:
    import torch
    from music2latent import audio, inference

    captured = {}

    def capture(name):
        return lambda module, inputs, output: captured.update({name: output})

    modules = {entry.path: entry.tensor for entry in name_table(config)}
    for level in range(len(config.widths)):
        block = f'levels_{level}_{config.encoder_blocks - 1}'
        prefix = modules['encoder', block, 'conv_in', 'kernel'].removesuffix('.conv1.weight')
        network.get_submodule(prefix).register_forward_hook(capture(f'encoder level {level}'))

    rows = len(waveform)
    with torch.no_grad():
        spectrogram = audio.to_representation_encoder(torch.from_numpy(waveform))
        frames = spectrogram.shape[-1] // config.time_downsampling * config.time_downsampling
        spectrogram = spectrogram[..., :frames]
        latents = network.encoder(spectrogram)
        stages = {'spectrogram': spectrogram, **captured, 'latents': latents}
        pyramid = network.decoder(latents)
        stages |= {f'pyramid level {level}': array for level, array in enumerate(pyramid)}
        noise = torch.from_numpy(_channels_first(_noise(config, rows, frames, step=0)))
        sigma = config.noise.sigma_max
        stages['denoised'] = network(latents, noise * sigma, sigma, pyramid)
        stages['waveform'] = audio.to_waveform(stages['denoised'])
    chunk = _LONGEST_SECONDS * config.spectrogram.sample_rate
    trainer = types.SimpleNamespace(gen=network)
    scaled = inference.encode_audio_inference(waveform, trainer, chunk, rows, 'cpu')
    for steps, name in _DECODES.items():
        with injected_noise(_noise(config, rows, frames, step) for step in range(steps + 1)):
            stages[name] = inference.decode_latent_inference(
                scaled, trainer, chunk, rows, steps, 'cpu'
            )
    return {name: _channels_last(np.asarray(array)) for name, array in stages.items()}


@contextlib.contextmanager
def injected_noise(noises: Iterator[np.ndarray]) -> Iterator[None]:
    """Makes PyTorch's normal generator return the given `[B, F, T, C]`, one after another."""
    import torch

    noises = iter(noises)

    def draw(*args, **kwargs):
        return torch.from_numpy(_channels_first(next(noises)))

    with mock.patch.object(torch, 'randn', draw), mock.patch.object(torch, 'randn_like', draw):
        yield


def _noise(config: ModelConfig, rows: int, frames: int, step: int) -> np.ndarray:
    """Draws the noise of `EncoderDecoder.decode` for a single chunk."""
    keys = jnp.stack([channel_key(SEED, row) for row in range(rows)])
    positions = jnp.tile(jnp.arange(frames // config.time_downsampling), (rows, 1))
    return np.asarray(decoding_noise(config, keys, positions, step))


def _channels_first(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(array, -1, 1))


def _channels_last(array: np.ndarray) -> np.ndarray:
    """Moves `[B, C, ...]` to `[B, ..., C]`; keeps a waveform `[B, N]`."""
    return np.moveaxis(array, 1, -1) if array.ndim > 2 else array

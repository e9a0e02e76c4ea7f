"""The PyTorch package's codec, training step and matrix products, to be timed by `contest`."""

import contextlib
import time
import types
from typing import Any

import jax
import numpy as np
import torch
from music2latent import hparams, inference, utils
from torch.optim.swa_utils import get_ema_multi_avg_fn

from benchmarks import timing
from benchmarks.options import Style
from benchmarks.workload import Workload
from m2l_jax.configs import default
from m2l_jax.interface.errors import InputError
from m2l_jax.model.config import ModelConfig
from m2l_jax.torch_weights.reference import random_tensors, reference_network

_CHUNK_SECONDS = 60  # the package's default
_GRID = 1024  # points of the density of noise levels


class Gpu:
    """Checks for a GPU.

    Raises:
      InputError: if JAX or PyTorch finds none; JAX would silently compute on the CPU.
    """

    def __init__(self):
        if jax.default_backend() != 'gpu':
            raise InputError("--device=cuda: JAX finds no GPU: pip install -e '.[cuda]'")
        if not torch.cuda.is_available():
            raise InputError('--device=cuda: PyTorch finds no GPU; is its CUDA build installed?')


class RandomWeights:
    """Writes random weights in all layers.

    Args:
      config: the model's.
      path: `.npz` file to write.
    """

    def __init__(self, config: ModelConfig, path: str):
        np.savez(path, **random_tensors(config))


class _Package:
    """The network on a device, laid out by a style; tuning holds for the whole process."""

    def __init__(self, config: ModelConfig, tensors: str, device: str, style: Style, mixed: bool):
        self._device, self._style = device, style
        self._while_it_runs = contextlib.ExitStack()  # the package rereads its sizes
        with np.load(tensors) as arrays:
            network = self._while_it_runs.enter_context(
                reference_network(config, dict(arrays), mixed_precision=mixed)
            )
        if style.tuned:
            torch.backends.cudnn.benchmark = True
            torch.set_float32_matmul_precision('high')
        network = network.to(device)
        if style.channels_last:
            network = network.to(memory_format=torch.channels_last)
        self.network = network

    def close(self) -> None:
        """Restores the package's own sizes."""
        self._while_it_runs.close()

    def limit_memory(self, share: float) -> None:
        """Frees what is cached on a GPU, and takes no more than a share of its memory.

        Where cuDNN tries its algorithms, it tries those whose workspaces fit into that.
        """
        if self._device == 'cuda':
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(share)

    def forget_peak(self) -> None:
        """Restarts the peak of the GPU's memory, or of this process's."""
        if torch.cuda.is_initialized():
            torch.cuda.reset_peak_memory_stats()
        else:
            timing.forget_peak()

    def facts(self) -> dict[str, Any]:
        """Device, peak of memory in GB, and use of TensorFloat-32."""
        on_gpu = self._device == 'cuda'
        in_gpu = torch.cuda.is_initialized()
        peak = torch.cuda.max_memory_allocated() if in_gpu else timing.peak_bytes()
        return {
            'device': torch.cuda.get_device_name() if on_gpu else self._device,
            'peak_memory_gb': peak / 1e9,
            'tensor_float_32': {
                'convolutions': on_gpu and torch.backends.cudnn.allow_tf32,
                'products': on_gpu and torch.backends.cuda.matmul.allow_tf32,
            },
        }


class PackageCodec(_Package):
    """Encodes and decodes a workload as the package's `EncoderDecoder` does.

    Args:
      config: the model's.
      tensors: `.npz` file of the weights.
      workload: the audio to encode, and the number of latents to decode.
      device: 'cpu' or 'cuda'.
      style: see `Style`.
    """

    def __init__(
        self, config: ModelConfig, tensors: str, workload: Workload, device: str, style: Style
    ):
        super().__init__(config, tensors, device, style, mixed=style.autocast and device == 'cuda')
        if style.compiled:
            self.network.encoder.compile(dynamic=False)
            self.network.compile(dynamic=False)
        self._audio, self._latents = workload.audio(config), workload.latents(config)
        self._encoded: torch.Tensor | None = None

    def run(self, direction: str, batch: int) -> float:
        """Seconds of 'encode' or 'decode', from arrays in memory to arrays in memory."""
        begin = time.perf_counter()
        # On a GPU the package mixes precisions itself.
        mixed = self._style.autocast and self._device == 'cpu'
        with torch.autocast('cpu', torch.bfloat16, enabled=mixed):
            if direction == 'encode':
                self._encoded = encode(self.network, self._audio, batch, self._device).cpu()
            else:
                decode(self.network, self._latents, batch, self._device).cpu()
        return time.perf_counter() - begin

    def latents(self) -> np.ndarray | None:
        """The last encoded latents, `[rows, 64, frames]`; plain ones without TensorFloat-32."""
        if self._encoded is None:
            return None
        if self._device == 'cuda' and self._style == Style():
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                self.run('encode', 1)
        return self._encoded.float().numpy()


class PackageTraining(_Package):
    """Consistency training of the package's network, by the paper's recipe.

    Encoder and decoder run once a step; teacher and student share their pyramid, and the teacher is
    not differentiated. Autocast is to bfloat16, with loss and parameters in float32.

    Args:
      config: the model's.
      tensors: `.npz` file of the weights to start from.
      batch: crops a step.
      frames: of a crop.
      device: 'cpu' or 'cuda'.
      style: see `Style`.

    Attributes:
      network: the package's.
    """

    def __init__(
        self,
        config: ModelConfig,
        tensors: str,
        batch: int,
        frames: int,
        device: str,
        style: Style,
    ):
        super().__init__(config, tensors, device, style, mixed=False)
        self.network.train()
        recipe = default.get_config()
        self._parameters = list(self.network.parameters())
        self._average = [parameter.detach().clone() for parameter in self._parameters]
        optimizer, consistency = recipe.optimizer, recipe.consistency
        self._ema_decay = optimizer.ema_decay
        self._delta = 10.0**-consistency.schedule.start_exponent
        self._huber_scale = consistency.huber_scale
        self._optimizer = torch.optim.RAdam(
            self._parameters, optimizer.learning_rate, betas=(optimizer.b1, optimizer.b2)
        )
        self._warm_up = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: min(1.0, step / optimizer.warmup_steps)
        )
        self._steps, self._first_latents = 0, None
        random = np.random.default_rng(0)
        shape = (batch, 2, config.spectrogram.bins, frames)
        self._crops = torch.from_numpy(0.5 * random.standard_normal(shape, np.float32)).to(device)
        self._density = _index_density(consistency.density).to(device)
        self._loss = (
            torch.compile(self.mean_loss, dynamic=False) if style.compiled else self.mean_loss
        )

    def run(self, steps: int) -> float:
        """Seconds of some steps in a row."""
        begin = time.perf_counter()
        for _ in range(steps):
            self._step()
        _synchronise(self._device)
        return time.perf_counter() - begin

    def latents(self) -> np.ndarray:
        """Those of the crops in the first step, `[batch, 64, latent frames]`."""
        return self._first_latents

    def mean_loss(
        self, clean: torch.Tensor, index: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        """The consistency loss of Song & Dhariwal 2023 with Music2Latent's pairs of levels.

        Args:
          clean: crops, `[B, 2, F, T]`.
          index: of the student's noise levels, `[B]`.
          noise: as `clean`.
        """
        high = utils.get_sigma_continuous(index)
        low = utils.get_sigma_continuous(torch.clamp(index - self._delta, min=0))
        latents = self.network.encoder(clean)
        self._encoded = latents.detach()
        pyramid = self.network.decoder(latents)
        noisy = utils.add_noise(clean, noise, high)
        student = self.network(latents, noisy, high, pyramid)
        with torch.no_grad():
            less_noisy = utils.add_noise(clean, noise, low)
            teacher = self.network(latents, less_noisy, low, pyramid)
        squared = ((student.float() - teacher.float()) ** 2).sum((1, 2, 3))
        c = self._huber_scale * clean[0].numel() ** 0.5
        return ((torch.sqrt(squared + c**2) - c) / (high - low)).mean()

    def _step(self) -> None:
        cell = torch.multinomial(self._density, len(self._crops), replacement=True)
        index = cell / (_GRID - 1)
        noise = torch.randn_like(self._crops)
        with torch.autocast(self._device, torch.bfloat16, enabled=self._style.autocast):
            loss = self._loss(self._crops, index, noise)
        if self._first_latents is None:
            self._first_latents = self._encoded.float().cpu().numpy()
        loss.backward()
        self._optimizer.step()
        self._warm_up.step()
        self._optimizer.zero_grad()
        decay = min(self._ema_decay, (1 + self._steps) / (10 + self._steps))
        with torch.no_grad():
            get_ema_multi_avg_fn(decay)(self._average, self._parameters, self._steps)
        self._steps += 1


class PackageMatrixProducts:
    """Products of matrices.

    Args:
      device: 'cpu' or 'cuda'.
      dtype: of the matrices.
    """

    def __init__(self, device: str, dtype: str):
        self._device, self._dtype = device, getattr(torch, dtype)

    def peak(self) -> float:
        """Floating-point operations a second."""

        def product(size: int):
            matrix = torch.randn((size, size), dtype=self._dtype, device=self._device)

            def run() -> None:
                torch.matmul(matrix, matrix)
                _synchronise(self._device)

            return run

        return timing.fastest_product(product, self._device)


def encode(network: Any, audio: np.ndarray, batch: int, device: str) -> torch.Tensor:
    """Encodes `[rows, samples]` as the package's `EncoderDecoder` does, in chunks of a minute."""
    trainer = types.SimpleNamespace(gen=network)
    chunk = _CHUNK_SECONDS * hparams.sample_rate
    return inference.encode_audio_inference(audio, trainer, chunk, batch, device)


def decode(network: Any, latents: np.ndarray, batch: int, device: str) -> torch.Tensor:
    """Decodes `[rows, 64, frames]` as the package's `EncoderDecoder` does, in one step.

    Noise and inverse STFT run on the CPU, also where the network runs on a GPU.
    """
    trainer = types.SimpleNamespace(gen=network)
    chunk = _CHUNK_SECONDS * hparams.sample_rate
    return inference.decode_latent_inference(latents, trainer, chunk, batch, 1, device)


def _synchronise(device: str) -> None:
    if device == 'cuda':
        torch.cuda.synchronize()


def _index_density(density: Any) -> torch.Tensor:
    """Weights of the noise indices on a uniform grid, `[_GRID]`."""
    index = torch.linspace(0, 1, _GRID)
    levels = utils.get_sigma_continuous(index)
    deviation = (torch.log(levels) - density.log_sigma_mean) / density.log_sigma_std
    weights = torch.exp(-0.5 * deviation**2)
    weights[0] = 0  # where student and teacher meet, and the loss is 0 over 0
    return weights

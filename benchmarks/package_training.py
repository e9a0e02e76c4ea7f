"""The recipe's training step around the PyTorch package's network, to be timed.

A `contest.Way` makes it in a process of its own.
"""

import contextlib
import time
from typing import Any

import numpy as np
import torch
from music2latent import utils
from torch.optim.swa_utils import get_ema_multi_avg_fn

from benchmarks import package
from benchmarks.matrix_peak import fastest_product, matrix_sizes
from configs import default
from m2l_jax.model.config import ModelConfig
from m2l_jax.torch_weights.reference import reference_network

_GRID = 1024  # points of the density of noise levels


class PackageTraining:
    """Consistency training of the package's network, by the paper's recipe.

    Encoder and decoder run once a step, and teacher and student share their pyramid; nothing of the
    teacher is differentiated. Autocast is to bfloat16, with loss and parameters in float32.

    Args:
      config: the model's.
      tensors: `.npz` file of the weights to start from.
      batch: crops a step.
      frames: of a crop.
      device: 'cpu' or 'cuda'.
      style: how the network runs.

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
        style: package.Style,
    ):
        self._while_it_runs = contextlib.ExitStack()  # the package reads its sizes again and again
        with np.load(tensors) as arrays:
            network = self._while_it_runs.enter_context(reference_network(config, dict(arrays)))
        self._device, self._style = device, style
        self.network = package.lay_out(network, style, device).train()
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
        self._steps = 0
        random = np.random.default_rng(0)
        shape = (batch, 2, config.spectrogram.bins, frames)
        self._crops = torch.from_numpy(0.5 * random.standard_normal(shape, np.float32)).to(device)
        self._density = _index_density(consistency.density).to(device)
        self._loss = (
            torch.compile(self.mean_loss, dynamic=False) if style.compiled else (self.mean_loss)
        )

    def run(self, steps: int) -> float:
        """Seconds of so many steps."""
        begin = time.perf_counter()
        for _ in range(steps):
            self._step()
        package.synchronise(self._device)
        return time.perf_counter() - begin

    def close(self) -> None:
        """Gives the package its own sizes back."""
        self._while_it_runs.close()

    def forget_peak(self) -> None:
        """Lets the peak of memory begin anew."""
        package.forget_peak()

    def facts(self) -> dict[str, Any]:
        """Where it ran, the peak of memory in GB, and what float32 means; see `package`."""
        return package.facts(self._device)

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
        loss.backward()
        self._optimizer.step()
        self._warm_up.step()
        self._optimizer.zero_grad()
        decay = min(self._ema_decay, (1 + self._steps) / (10 + self._steps))
        with torch.no_grad():
            get_ema_multi_avg_fn(decay)(self._average, self._parameters, self._steps)
        self._steps += 1


class PackageMatrixProducts:
    """Products of matrices, to be measured with nothing beside them.

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
                package.synchronise(self._device)

            return run

        return fastest_product(product, matrix_sizes(self._device))


def _index_density(density: Any) -> torch.Tensor:
    """Weights of the noise indices on a uniform grid, `[_GRID]`."""
    index = torch.linspace(0, 1, _GRID)
    levels = utils.get_sigma_continuous(index)
    deviation = (torch.log(levels) - density.log_sigma_mean) / density.log_sigma_std
    weights = torch.exp(-0.5 * deviation**2)
    weights[0] = 0  # where student and teacher meet, and the loss is 0 over 0
    return weights

"""Builds the PyTorch package's network at any size, for comparisons."""

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from m2l_jax.interface.errors import InputError
from m2l_jax.model.config import ModelConfig
from m2l_jax.torch_weights.names import unused_tensors
from m2l_jax.torch_weights.state_dict import StateDict, check_tensors

# Each module of the package has its own copy of the hyperparameters, made by `import *`.
_MODULES = ('hparams', 'utils', 'audio', 'models', 'inference')


@contextlib.contextmanager
def reference_network(
    config: ModelConfig,
    tensors: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
    mixed_precision: bool = False,
) -> Iterator[Any]:
    """The package's network for a config, a `UNet` with `encoder` and `decoder` inside.

    It is on the CPU, in float32, in evaluation mode. The package reads its sizes from module
    globals while it is built and while it runs; they are this config's inside the `with` block.

    Args:
      config: sizes and representation.
      tensors: the state dict; None leaves the package's own random initialisation.
      seed: of that initialisation.
      mixed_precision: the package's default: float16 on a GPU.

    Raises:
      InputError: if the package is not installed or the tensors do not fit.
    """
    try:
        import torch

        modules = [importlib.import_module(f'music2latent.{name}') for name in _MODULES]
    except ImportError as error:
        raise InputError(
            f"the PyTorch package is needed to compare with ({error}): pip install 'm2l-jax[torch]'"
        ) from None
    values = _hyperparameters(config, mixed_precision)
    before = [{name: getattr(m, name) for name in values if hasattr(m, name)} for m in modules]
    try:
        for module, old in zip(modules, before, strict=True):
            _set(module, {name: values[name] for name in old})
        torch.manual_seed(seed)
        network = importlib.import_module('music2latent.models').UNet().eval()
        if tensors is not None:
            check_tensors(tensors, config)
            unused = {name: np.zeros(shape, np.float32) for name, shape in unused_tensors(config)}
            filled = {**unused, **tensors}
            state = {name: torch.from_numpy(np.array(array)) for name, array in filled.items()}
            network.load_state_dict(state, strict=True)
        yield network
    finally:
        for module, old in zip(modules, before, strict=True):
            _set(module, old)


def random_tensors(config: ModelConfig, seed: int = 0) -> StateDict:
    """Weights from the package's initialisation, changed so that each of them counts.

    As initialised, each residual block and the whole network give zero, which would hide all
    differences inside: zeros become noise, and norms differ between channels.
    """
    with reference_network(config, seed=seed) as network:
        import torch

        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if not parameter.any():
                    parameter.normal_(std=0.02)
                elif 'norm' in name or 'gain' in name:
                    parameter.add_(0.1 * torch.randn(parameter.shape))
        return state_dict_of(network)


def state_dict_of(network: Any) -> StateDict:
    """The network's tensors as NumPy arrays, copied."""
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


def _set(module: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        setattr(module, name, value)


def _hyperparameters(config: ModelConfig, mixed_precision: bool) -> dict[str, Any]:
    """The package's names for the fields of a config."""
    attention = [int(attends) for attends in config.attention]
    levels = len(config.widths)
    return {
        'base_channels': config.base_channels,
        'multipliers_list': list(config.channel_multipliers),
        'freq_downsample_list': [int(factors == (4, 1)) for factors in config.downsampling],
        'attention_list': attention,
        'attention_list_encoder': attention,
        'heads': config.attention_heads,
        'layers_list': [config.unet_blocks] * levels,
        'layers_list_encoder': [config.encoder_blocks] * levels,
        'bottleneck_base_channels': config.bottleneck_channels,
        'num_bottleneck_layers': config.bottleneck_blocks,
        'bottleneck_channels': config.latent_channels,
        'cond_channels': config.embedding_channels,
        'sample_rate': config.spectrogram.sample_rate,
        'hop': config.spectrogram.hop,
        'alpha_rescale': config.spectrogram.alpha,
        'beta_rescale': config.spectrogram.beta,
        'sigma_min': config.noise.sigma_min,
        'sigma_max': config.noise.sigma_max,
        'sigma_data': config.noise.sigma_data,
        'rho': config.noise.rho,
        'mixed_precision': mixed_precision,  # autocast, where a GPU is found
    }

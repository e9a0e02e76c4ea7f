"""The PyTorch package's network in the ways in which it may run fastest."""

import dataclasses
import itertools
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from benchmarks import memory
from m2l_jax.interface.errors import InputError

_CHUNK_SECONDS = 60  # the package's default


@dataclasses.dataclass(frozen=True)
class Style:
    """How PyTorch runs the network.

    Attributes:
      compiled: by `torch.compile`, for the very shapes.
      channels_last: whether its weights, and so what it computes, lie channels last.
      autocast: whether a GPU computes in the precision that is mixed in: float16 in the package's
        codec, by its own choice; bfloat16 in training.
      tuned: whether cuDNN tries its algorithms, and products of matrices in float32 are in
        TensorFloat-32 on a GPU, as its convolutions are anyway.
    """

    compiled: bool = False
    channels_last: bool = False
    autocast: bool = False
    tuned: bool = False

    @property
    def name(self) -> str:
        """As it is told."""
        words = ['compiled' if self.compiled else 'eager']
        words += ['channels last'] if self.channels_last else []
        words += ['autocast'] if self.autocast else []
        words += ['tuned'] if self.tuned else []
        return ' '.join(words)


def define_styles() -> flags.FlagHolder:
    """The flag `--styles` of those that are to be tried."""
    return flags.DEFINE_list(
        'styles',
        None,
        'Of the package, to be tried: eager, "compiled channels last", …; on a GPU "eager '
        'autocast", "compiled autocast tuned", …; or all.',
    )


def default_style(device: str) -> Style:
    """What a user of the package meets on a 'cpu' or 'cuda' device."""
    return Style(autocast=device == 'cuda')


def chosen_styles(names: Sequence[str] | None, device: str) -> list[Style]:
    """Those of the given names, or all of a 'cpu' or 'cuda' device; what compiles nothing first.

    Raises:
      InputError: for a name that is none of them.
    """
    either = (False, True)
    if device == 'cuda':
        tuned = [Style(*values, tuned=True) for values in itertools.product(either, repeat=3)]
        every = [default_style(device), *tuned]
    else:
        every = [Style(*values) for values in itertools.product(either, repeat=2)]
    known = {style.name: style for style in every}
    for name in names or ():
        if name not in known:
            raise InputError(f'--styles has {name!r}: on {device} there are {", ".join(known)}')
    return [known[name] for name in names] if names else every


def encode(network: Any, audio: np.ndarray, batch: int, device: str) -> Any:
    """Encodes `[rows, samples]` as the package's `EncoderDecoder` does, in chunks of a minute."""
    from music2latent import hparams, inference

    chunk = _CHUNK_SECONDS * hparams.sample_rate
    trainer = types.SimpleNamespace(gen=network)
    return inference.encode_audio_inference(audio, trainer, chunk, batch, device)


def decode(network: Any, latents: np.ndarray, batch: int, device: str) -> Any:
    """Decodes `[rows, 64, frames]` as the package's `EncoderDecoder` does, in one step.

    It draws the noise, and makes the waveform of the spectrogram, on the CPU also where the network
    runs on a GPU.
    """
    from music2latent import hparams, inference

    chunk = _CHUNK_SECONDS * hparams.sample_rate
    trainer = types.SimpleNamespace(gen=network)
    return inference.decode_latent_inference(latents, trainer, chunk, batch, 1, device)


def forget_peak() -> None:
    """Lets the peak of memory begin anew: the GPU's, or without one this process's."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    else:
        memory.forget_peak()


def peak_bytes() -> int:
    """The peak of the GPU's memory, or without one of this process's."""
    import torch

    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    return memory.peak_bytes()


def facts(device: str) -> dict[str, Any]:
    """Where it ran, the peak of memory in GB, and what float32 means on a GPU."""
    import torch

    return {
        'device': device_name(device),
        'peak_memory_gb': peak_bytes() / 1e9,
        'tensor_float_32': {
            'convolutions': device == 'cuda' and torch.backends.cudnn.allow_tf32,
            'products': device == 'cuda' and torch.backends.cuda.matmul.allow_tf32,
        },
    }


def device_name(device: str) -> str:
    """Of what PyTorch computes on."""
    import torch

    return torch.cuda.get_device_name() if device == 'cuda' else device


def lay_out(network: Any, style: Style, device: str) -> Any:
    """The network on the device, with its weights as the style has them.

    What is tuned is tuned for the whole process.
    """
    import torch

    if style.tuned:
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision('high')
    network = network.to(device)
    return network.to(memory_format=torch.channels_last) if style.channels_last else network


def synchronise(device: str) -> None:
    """Waits for the GPU."""
    import torch

    if device == 'cuda':
        torch.cuda.synchronize()

"""The model that a corpus is encoded or decoded with, and how much it takes at once."""

from collections.abc import Callable
from typing import Protocol

import jax

from m2l_jax.codec.chunks import Chunking
from m2l_jax.codec.compile_cache import use_compile_cache
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.interface.errors import InputError

# What the TPU's compiler asks for, of decoding, which needs more: 10.7 GB for a chunk of 645 latent
# vectors in bfloat16 at full size.
_BYTES_A_LATENT = {'bfloat16': 16.6e6, 'float32': 33.2e6}
_USED_MEMORY = 0.8


class ModelSettings(Protocol):
    """What settings of encoding and of decoding have in common."""

    model: str
    dtype: str
    chunk_seconds: float
    overlap_seconds: float


def load_codec(checkpoint: str | None, dtype: str | None) -> EncoderDecoder:
    """The model, on all of this process's devices; what is compiled is kept on disk.

    Args:
      checkpoint: see `EncoderDecoder`.
      dtype: of the computation; None for bfloat16 on accelerators and float32 on a CPU.

    Raises:
      InputError: if the checkpoint cannot be read.
    """
    use_compile_cache()
    default = 'float32' if jax.default_backend() == 'cpu' else 'bfloat16'
    return EncoderDecoder(checkpoint, dtype=dtype or default, devices=jax.local_devices())


def load_same_codec(checkpoint: str | None, settings: ModelSettings) -> EncoderDecoder:
    """The model that a run began with, in another process.

    Raises:
      InputError: if the checkpoint cannot be read, or holds another.
    """
    codec = load_codec(checkpoint, settings.dtype)
    if codec.model_id != settings.model:
        raise InputError(
            f'{checkpoint} holds model {codec.model_id}, and held {settings.model} when this run '
            'began: pass a checkpoint that does not change'
        )
    return codec


def check_chunks(settings: ModelSettings) -> None:
    """Raises InputError if the lengths of chunks are no numbers."""
    for flag, value in (
        ('chunk_seconds', settings.chunk_seconds),
        ('overlap', settings.overlap_seconds),
    ):
        if not 0 <= value < float('inf'):  # NaN neither
            raise InputError(f'--{flag}={value} must be a number, 0 or more')


def chunking_of(codec: EncoderDecoder, settings: ModelSettings, sample_rate: int) -> Chunking:
    """How audio of a sample rate is cut by these settings.

    Raises:
      InputError: if chunks are too short, or overlap too far.
    """
    samples = round(settings.chunk_seconds * sample_rate)
    try:
        return codec.chunking(samples, round(settings.overlap_seconds * sample_rate))
    except InputError:
        least = codec.samples_per_latent / sample_rate
        raise InputError(
            f'--chunk_seconds={settings.chunk_seconds} with --overlap={settings.overlap_seconds}: '
            f'a chunk takes at least {least:.3f} s, and shares at most half of itself'
        ) from None


def rows_at_once(
    codec: EncoderDecoder, chunking: Chunking, batch_size: int | None
) -> Callable[[int], int]:
    """What gives the rows in a batch for a number of latent vectors in each.

    An accelerator takes as much audio at once whatever its length. A CPU gains nothing by it, and
    would have to fill the last batch of each length with rows of nothing.

    Args:
      codec: the model.
      chunking: how audio is cut.
      batch_size: chunks that a device takes at once; None for one on a CPU, and on an accelerator
        for what its memory has room for.
    """
    device = jax.local_devices()[0]
    chunks = _fitting_chunks(codec, chunking, device) if batch_size is None else batch_size
    rows = chunks * codec.devices
    if device.platform == 'cpu':
        return lambda latents: rows
    return lambda latents: rows * (chunking.size // latents)


def _fitting_chunks(codec: EncoderDecoder, chunking: Chunking, device: jax.Device) -> int:
    memory = (device.memory_stats() or {}).get('bytes_limit', 0)
    config = codec.config
    needed = _BYTES_A_LATENT[config.dtype] * config.base_channels / 64 * chunking.size
    return max(1, int(_USED_MEMORY * memory / needed))

"""The model of a corpus job: loading it, its chunks and batches, and latents fitted to it."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import jax
import numpy as np

from m2l_jax.codec import mixing
from m2l_jax.codec.arrays import as_batch, describe_excess
from m2l_jax.codec.chunks import Chunking
from m2l_jax.codec.compile_cache import use_compile_cache
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.corpus.plan import ShardSummary
from m2l_jax.corpus.store import StoredLatents
from m2l_jax.interface.errors import InputError

# As the TPU's compiler reports for decoding, which needs more than encoding: 10.7 GB for a chunk of
# 645 latent vectors in bfloat16 at full size.
_BYTES_A_LATENT = {'bfloat16': 16.6e6, 'float32': 33.2e6}
_USED_MEMORY = 0.8


class ModelSettings(Protocol):
    """The settings that encoding and decoding share."""

    model: str
    dtype: str
    chunk_seconds: float
    overlap_seconds: float


@dataclasses.dataclass(frozen=True)
class ModelJob:
    """A job whose workers compute with a model; see `run.Job`.

    Attributes:
      checkpoint: the model's; None for the released one.
      settings: all that the output depends on beside the input.
      target: output folder, or a `Target` in it; all workers see it.
      batch_size: chunks that a device takes at once; None for as many as its memory holds.
        Accelerators take more of shorter audio.
      codec: the model if it is loaded already; None for a job that travels.
    """

    checkpoint: str | None
    settings: ModelSettings
    target: Any
    batch_size: int | None
    codec: EncoderDecoder | None = None

    def load(self) -> EncoderDecoder:
        """Returns the model, on all of this process's devices.

        Raises:
          InputError: if the checkpoint cannot be read, or isn't the one that the run began with.
        """
        if self.codec is not None:
            return self.codec
        codec = load_codec(self.checkpoint, self.settings.dtype)
        if codec.model_id != self.settings.model:
            raise InputError(
                f'{self.checkpoint} holds model {codec.model_id}, and held {self.settings.model} '
                'when this run began: pass a checkpoint that does not change'
            )
        return codec

    def complete(self, summaries: Iterable[ShardSummary]) -> None:
        """Does nothing: the files are complete."""


def load_codec(checkpoint: str | None, dtype: str | None) -> EncoderDecoder:
    """Loads a model on all of this process's devices; compiled programs are kept on disk.

    Args:
      checkpoint: see `EncoderDecoder`.
      dtype: of the computation; None for bfloat16 on accelerators and float32 on a CPU.

    Raises:
      InputError: if the checkpoint cannot be read.
    """
    use_compile_cache()
    default = 'float32' if jax.default_backend() == 'cpu' else 'bfloat16'
    return EncoderDecoder(checkpoint, dtype=dtype or default, devices=jax.local_devices())


def check_chunks(settings: ModelSettings) -> None:
    """Raises an InputError unless the lengths of chunks are numbers from 0 on."""
    for flag, value in (
        ('chunk_seconds', settings.chunk_seconds),
        ('overlap', settings.overlap_seconds),
    ):
        if not 0 <= value < float('inf'):  # or NaN
            raise InputError(f'--{flag}={value} must be a number, 0 or more')


def chunking_of(codec: EncoderDecoder, settings: ModelSettings, sample_rate: int) -> Chunking:
    """Returns how the settings cut audio of a sample rate in Hz.

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
    """Returns a function from the latent vectors in each row to the rows in a batch.

    An accelerator takes the same amount of audio at once, whatever its length. A CPU would gain
    nothing by that, and would fill the last batch of each length with empty rows.

    Args:
      codec: the model.
      chunking: of the audio.
      batch_size: chunks that a device takes at once; None for one on a CPU, and on an accelerator
        for as many as its memory holds.
    """
    device = jax.local_devices()[0]
    chunks = batch_size
    if chunks is None:
        memory = (device.memory_stats() or {}).get('bytes_limit', 0)
        needed = _BYTES_A_LATENT[codec.config.dtype] * codec.config.base_channels / 64
        chunks = max(1, int(_USED_MEMORY * memory / (needed * chunking.size)))
    rows = chunks * codec.devices
    if device.platform == 'cpu':
        return lambda latents: rows
    return lambda latents: rows * (chunking.size // latents)


def fit_latents(
    name: str,
    stored: StoredLatents,
    codec: EncoderDecoder,
    sample_rate: int | None,
    scale: float | None,
) -> tuple[list[StoredLatents], list[str]]:
    """Fits latents, perhaps of other programs, to the model: completes and corrects metadata.

    Args:
      name: of the file, for errors.
      stored: its content, see `store.read_any`.
      codec: the model that decodes it.
      sample_rate: of the audio in Hz, if the file doesn't say it; None for the model's.
      scale: of the latents, if the file doesn't say it; None for the one that `encode` writes.

    Returns:
      The latents of each audio file to write, `[channels, width, frames]`, float32, at the model's
      scale, with all metadata: several for a batch. And warnings, to follow the file's name.

    Raises:
      InputError: if they aren't latents, or not of this model.
    """
    check_decodable(name, stored, codec)
    if stored.kind == 'tokens':
        stored = _to_latents(name, stored, codec)
    config = codec.config
    batch = as_batch(
        name,
        stored.latents,
        config.latent_channels,
        config.feature_channels,
        config.audio_channels,
    )
    lines = _compare_flags(stored, sample_rate=sample_rate, scale=scale)
    if stored.model is None:
        lines += _question_shape(stored.latents.shape)
    known_scale = stored.scale or scale
    batch = _rescale(name, batch, known_scale or config.latent_scale, config.latent_scale)
    excess = describe_excess(batch, config.latent_scale)
    if known_scale is None and np.abs(batch).max() <= 1:
        lines.append(
            "is within ±1, as are the model's latents before they are scaled: is it --scale=1?"
        )
    elif excess:
        lines.append(excess)
    fields, misfits = _fit_metadata(stored, batch.shape, codec)
    fields |= {
        'sample_rate': stored.sample_rate or sample_rate or config.spectrogram.sample_rate,
        'scale': config.latent_scale,
        'model': codec.model_id,
    }
    complete = [dataclasses.replace(stored, latents=latents, **fields) for latents in batch]
    return complete, lines + misfits


def check_decodable(name: str, stored: StoredLatents, codec: EncoderDecoder) -> None:
    """Raises an InputError for what this model cannot decode, by what a file says of itself.

    These are features, tokens if the model is continuous, and latents of another encoder.
    """
    if stored.kind == 'features':
        raise InputError(f'{name} holds features, which are not decoded: encode it again')
    if stored.kind == 'tokens' and not codec.config.is_discrete:
        raise InputError(
            f'{name} holds tokens, and this model has none, its bottleneck '
            f'{codec.config.bottleneck!r} is continuous: pass the checkpoint that they are of'
        )
    if stored.model not in (None, codec.model_id, *codec.config.latents_of):
        raise InputError(
            f'{name} was encoded by model {stored.model}, this checkpoint is {codec.model_id}: '
            'pass the one that it was encoded with'
        )


def _to_latents(name: str, stored: StoredLatents, codec: EncoderDecoder) -> StoredLatents:
    """Returns the latents that a file's tokens stand for, at the model's scale."""
    try:
        if stored.levels != codec.config.levels:
            raise InputError(
                f'its tokens have {stored.levels} levels, and those of this model '
                f'{codec.config.levels}: pass the checkpoint that they are of'
            )
        latents = codec.from_tokens(stored.latents)
    except InputError as error:
        raise InputError(f'{name}: {error}') from None
    scale = codec.config.latent_scale
    return dataclasses.replace(stored, latents=latents, scale=scale, kind='latents', levels=None)


def _compare_flags(stored: StoredLatents, **flags: float | None) -> list[str]:
    """Returns warnings about flags that a file contradicts."""
    said = {name: getattr(stored, name) for name in flags}
    return [
        f'says {name}={said[name]}: --{name}={flag} is not used for it'
        for name, flag in flags.items()
        if None not in (flag, said[name]) and flag != said[name]
    ]


def _question_shape(shape: tuple[int, ...]) -> list[str]:
    """Returns warnings about shapes that may mean something else."""
    lines = []
    if shape[-2] == shape[-1]:
        lines.append(f'has shape {shape}: the last axis is taken for frames')
    if len(shape) == 3 and shape[0] > 2:
        lines.append(
            f'has shape {shape}: {shape[0]} channels of one file; a batch has 4 axes, '
            '[batch, channels, numbers, frames]'
        )
    return lines


def _rescale(name: str, latents: np.ndarray, scale: float, wanted: float) -> np.ndarray:
    """Converts latents of any dtype and scale to float32 at the scale `wanted`."""
    with np.errstate(over='ignore'):
        scaled = latents.astype(np.float32) * (scale / wanted)
    if not np.isfinite(scaled).all():
        peak = float(np.abs(latents).max())
        raise InputError(
            f'{name} holds latents of up to {peak:.3g}, at scale {scale:g}: too large for float32'
        )
    return scaled


def _fit_metadata(
    stored: StoredLatents, shape: tuple[int, ...], codec: EncoderDecoder
) -> tuple[dict[str, Any], list[str]]:
    """Returns samples, channel mode and chunks that fit `[B, channels, width, frames]`."""
    _, channels, _, frames = shape
    step, lines = codec.samples_per_latent, []
    whole = frames * step + codec.reach
    samples, mode, offsets = stored.samples, stored.channel_mode, stored.chunk_offsets
    if samples is None:
        samples = whole
    # The last vector may have been completed with silence, or the last samples dropped.
    elif not (frames - 1) * step < samples < whole + step:
        lines.append(
            f'has {frames} latent vectors, {whole} samples of audio, and says samples={samples}: '
            'all the vectors are decoded'
        )
        samples = whole
    stereo = codec.config.audio_channels > 1
    if mode not in mixing.modes(stereo):
        if mode != 'each':  # of a file that doesn't say it
            kind = 'stereo' if stereo else 'mono'
            lines.append(f'says channel_mode={mode}, which a {kind} model does not encode')
        mode = mixing.modes(stereo)[0]
    if channels not in mixing.SEQUENCES.get(mode, (channels,)):
        lines.append(f'has {channels} channels and says channel_mode={mode}: they are left as is')
        mode = 'each'
    if offsets[-1] >= frames:
        lines.append(f'has {frames} latent vectors and says that a chunk begins at {offsets[-1]}')
        offsets = (0,)
    return {'samples': samples, 'channel_mode': mode, 'chunk_offsets': offsets}, lines

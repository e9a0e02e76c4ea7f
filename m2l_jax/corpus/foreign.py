"""Latents that others made or changed, fitted to the model that is to decode them."""

import dataclasses

import numpy as np

from m2l_jax.codec.arrays import as_batch, describe_excess
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.corpus.store import StoredLatents
from m2l_jax.interface.errors import InputError

_CHANNELS_OF_MODE = {'mono': (1,), 'mid_side': (1, 2)}  # mid alone is of mono audio


def fit_latents(
    name: str,
    stored: StoredLatents,
    codec: EncoderDecoder,
    sample_rate: int | None,
    scale: float | None,
) -> tuple[list[StoredLatents], list[str]]:
    """Completes what a file does not say, and follows its latents where the rest does not fit.

    Args:
      name: of the file, for errors.
      stored: what is in it, see `store.read_any`.
      codec: the model that decodes it.
      sample_rate: of the audio in Hz, of a file that does not say it; None for the model's.
      scale: of the latents, of a file that does not say it; None for what `encode` writes.

    Returns:
      Latents of each file to be written, `[channels, width, frames]`, float32, at the model's
      scale, with all metadata: one, or those of a batch. And a line on each thing that the user
      should know, which goes on from the file's name.

    Raises:
      InputError: if they are no latents, or not of this model.
    """
    check_decodable(name, stored, codec.model_id)
    config = codec.config
    batch = as_batch(name, stored.latents, config.latent_channels, config.feature_channels)
    lines = _question_flags(stored, sample_rate=sample_rate, scale=scale)
    if stored.model is None:
        lines += _question_shape(stored.latents.shape)
    known_scale = stored.scale or scale
    batch = _rescale(name, batch, known_scale or config.latent_scale, config.latent_scale)
    lines += _question_size(batch, config.latent_scale, is_scale_known=known_scale is not None)
    fields, misfits = _fit_metadata(stored, batch.shape, codec)
    fields |= {
        'sample_rate': stored.sample_rate or sample_rate or config.spectrogram.sample_rate,
        'scale': config.latent_scale,
        'model': codec.model_id,
    }
    complete = [dataclasses.replace(stored, latents=latents, **fields) for latents in batch]
    return complete, lines + misfits


def check_decodable(name: str, stored: StoredLatents, model: str) -> None:
    """Raises an InputError if a file says that it holds features, or latents of another model."""
    if stored.kind != 'latents':
        raise InputError(f'{name} holds features, which are not decoded: encode it again')
    if stored.model not in (None, model):
        raise InputError(
            f'{name} was encoded by model {stored.model}, this checkpoint is {model}: '
            'pass the one that it was encoded with'
        )


def _question_flags(stored: StoredLatents, **flags: float | None) -> list[str]:
    """Lines on flags that say otherwise than a file."""
    said = {name: getattr(stored, name) for name in flags}
    return [
        f'says {name}={said[name]}: --{name}={flag} is not used for it'
        for name, flag in flags.items()
        if None not in (flag, said[name]) and flag != said[name]
    ]


def _question_shape(shape: tuple[int, ...]) -> list[str]:
    """Lines on shapes that others may have meant otherwise."""
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
    """Latents of any dtype and scale as float32 at the scale that is wanted."""
    with np.errstate(over='ignore'):
        scaled = latents.astype(np.float32) * (scale / wanted)
    if not np.isfinite(scaled).all():
        peak = float(np.abs(latents).max())
        raise InputError(
            f'{name} holds latents of up to {peak:.3g}, at scale {scale:g}: too large for float32'
        )
    return scaled


def _question_size(latents: np.ndarray, scale: float, is_scale_known: bool) -> list[str]:
    """Lines on numbers that are too large, or as small as before they are scaled."""
    excess = describe_excess(latents, scale)
    if not is_scale_known and np.abs(latents).max() <= 1:
        return ["is within ±1, as are the model's latents before they are scaled: is it --scale=1?"]
    return [excess] if excess else []


def _fit_metadata(
    stored: StoredLatents, shape: tuple[int, ...], codec: EncoderDecoder
) -> tuple[dict[str, int | str | tuple[int, ...]], list[str]]:
    """Samples, channel mode and chunks that fit latents `[B, channels, width, frames]`."""
    _, channels, _, frames = shape
    step, reach, lines = codec.samples_per_latent, codec.reach, []
    whole = frames * step + reach
    samples, mode, offsets = stored.samples, stored.channel_mode, stored.chunk_offsets
    if samples is None:
        samples = whole
    # Silence may have completed the last vector, or what was too little for one been dropped.
    elif not (frames - 1) * step < samples < whole + step:
        lines.append(
            f'has {frames} latent vectors, {whole} samples of audio, and says samples={samples}: '
            'all the vectors are decoded'
        )
        samples = whole
    if channels not in _CHANNELS_OF_MODE.get(mode, (channels,)):
        lines.append(f'has {channels} channels and says channel_mode={mode}: they are left as is')
        mode = 'each'
    if offsets[-1] >= frames:
        lines.append(f'has {frames} latent vectors and says that a chunk begins at {offsets[-1]}')
        offsets = (0,)
    return {'samples': samples, 'channel_mode': mode, 'chunk_offsets': offsets}, lines

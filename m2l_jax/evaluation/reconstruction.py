"""A file encoded, decoded, and set beside its original."""

import os
import pathlib
import time

from m2l_jax.audio import files
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.evaluation.metrics import log_spectral_distance, si_sdr
from m2l_jax.evaluation.report import draw_comparison


def reconstruct_file(
    codec: EncoderDecoder,
    audio_path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    denoising_steps: int = 1,
    seed: int = 0,
) -> dict[str, float]:
    """Writes the reconstruction of a file as WAV and PNG into `output` and returns its figures.

    Args:
      codec: the model.
      audio_path: any audio file; `output` gets a `.wav` and a `.png` of its name.
      output: folder; made if missing.
      denoising_steps: evaluations of the model.
      seed: of the decoding noise.

    Returns:
      `si_sdr` and `lsd` in dB, `seconds` taken (compilation included) and `real_time_factor`.

    Raises:
      InputError: for a file that cannot be read, is too short, or is not finite.
    """
    sample_rate = codec.config.spectrogram.sample_rate
    original = files.read(audio_path, sample_rate)
    begin = time.monotonic()
    latents = codec.encode(codec.pad(original))
    reconstruction = codec.decode(latents, denoising_steps, seed)[:, : original.shape[1]]
    seconds = time.monotonic() - begin
    figures = {
        'si_sdr': si_sdr(original, reconstruction),
        'lsd': log_spectral_distance(original, reconstruction),
        'seconds': seconds,
        'real_time_factor': original.shape[1] / sample_rate / seconds,
    }
    stem = pathlib.Path(output) / pathlib.Path(audio_path).stem
    files.write(stem.with_suffix('.wav'), reconstruction, sample_rate)
    title = f'{stem.name}: SI-SDR {figures["si_sdr"]:.2f} dB, LSD {figures["lsd"]:.2f} dB'
    draw_comparison(stem.with_suffix('.png'), original, reconstruction, sample_rate, title)
    return figures

"""A file encoded, decoded, and set beside its original."""

import os
import pathlib
import time

import numpy as np

from m2l_jax.audio import files
from m2l_jax.audio.levels import check_loudness
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.evaluation.metrics import LEAST_SAMPLES, log_spectral_distance, mel_distance, si_sdr
from m2l_jax.evaluation.report import draw_comparison, save_picture
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import new_folder


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
      `si_sdr` and `lsd` in dB, `mel`, `seconds` taken (compilation included) and
      `real_time_factor`.

    Raises:
      InputError: for a file that cannot be read, is too short, silent, not finite or absurdly
        loud, or that would be overwritten.
    """
    sample_rate = codec.config.spectrogram.sample_rate
    stem = pathlib.Path(audio_path).stem
    wav_path = pathlib.Path(output, f'{stem}.wav')
    if wav_path.resolve() == pathlib.Path(audio_path).resolve():
        raise InputError(f'{wav_path} would be overwritten: choose another output folder')
    original = files.read(audio_path, sample_rate)
    _check(original, audio_path)
    with new_folder(output) as folder:
        begin = time.monotonic()
        reconstruction = codec.reconstruct(original, denoising_steps, seed)
        seconds = time.monotonic() - begin
        files.write(wav_path, reconstruction, sample_rate)
        figures = {
            'si_sdr': si_sdr(original, reconstruction),
            'lsd': log_spectral_distance(original, reconstruction),
            'mel': mel_distance(original, reconstruction, sample_rate),
            'seconds': seconds,
            'real_time_factor': original.shape[1] / sample_rate / seconds,
        }
        title = f'{stem}: SI-SDR {figures["si_sdr"]:.2f} dB, LSD {figures["lsd"]:.2f} dB'
        figure = draw_comparison(original, reconstruction, sample_rate, title)
        save_picture(folder / f'{stem}.png', figure)
        return figures


def _check(waveform: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Refuses audio whose reconstruction could not be measured."""
    if waveform.shape[1] < LEAST_SAMPLES:
        raise InputError(
            f'{path} has {waveform.shape[1]} samples, too few to measure: {LEAST_SAMPLES} at least'
        )
    files.check_finite(waveform, path)
    check_loudness(waveform, path)
    if not np.any(waveform):
        raise InputError(f'{path} is silent: there is nothing to reconstruct')

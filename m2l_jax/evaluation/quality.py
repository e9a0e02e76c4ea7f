"""How well a model reconstructs given audio, piece by piece."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from m2l_jax.audio import files
from m2l_jax.audio.levels import Levels
from m2l_jax.audio.spectrogram import to_spectrogram
from m2l_jax.audio.suffixes import LeftOut
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.evaluation import metrics, noise_bins
from m2l_jax.evaluation.held_out import LEAST_RMS, Clip, cut_crops
from m2l_jax.evaluation.report import draw_comparison, save_picture
from m2l_jax.interface.errors import InputError

_CROP_FRAMES = 64  # of the paper's training crops
_HUBER_SCALE, _DELTA = 0.00054, 1e-3  # c/√n, and the Δ at which the paper's schedule ends


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """A clip's `waveform`, `[channels, samples]`, as a model gives it back, and its `figures`."""

    clip: Clip
    waveform: np.ndarray
    figures: dict[str, float]


def cut_clips(
    paths: str, sample_rate: int, seconds: float
) -> tuple[list[Clip], LeftOut, dict[str, str]]:
    """Cuts every file into pieces of one length; what is left over or silent is left out.

    Args:
      paths: a file or folder; several with commas between.
      sample_rate: of the clips, in Hz.
      seconds: of each.

    Returns:
      The clips, what the folders hold of formats that are not read, and the reason for each file
      of which there is no clip.

    Raises:
      InputError: if pieces would be too short to measure, or there are none.
    """
    samples = round(seconds * sample_rate)
    if samples < metrics.LEAST_SAMPLES:
        raise InputError(
            f'pieces of {seconds} s are too short to measure: '
            f'{metrics.LEAST_SAMPLES / sample_rate:.3f} at least'
        )
    found, left_out = files.search(paths)
    clips, skipped = [], {}
    for index, path in enumerate(found):
        try:
            pieces = _read_pieces(path, sample_rate, samples)
        except InputError as error:
            skipped[path] = str(error)
            continue
        # The index tells files of the same name apart.
        stem = f'{index:02}_{pathlib.Path(path).stem}'
        clips += [Clip(f'{stem}_{number:02}', piece) for number, piece in pieces]
        if not pieces:
            skipped[path] = f'{path} has no {seconds} s that are not silent'
    if not clips:
        unread_too = f' ({left_out.describe()})' if left_out.files else ''
        reason = f': {next(iter(skipped.values()))}' if skipped else ''
        raise InputError(f'{paths} has nothing to evaluate{unread_too}{reason}')
    return clips, left_out, skipped


def _read_pieces(path: str, sample_rate: int, samples: int) -> list[tuple[int, np.ndarray]]:
    """Number and `[channels, samples]` of each piece of a file that is not silent."""
    levels = Levels()
    waveform = files.read(path, sample_rate, levels=levels)
    files.check_finite(waveform, path)
    if too_loud := levels.too_loud():
        raise InputError(f'{path} is {too_loud}')
    cut = waveform[:, : waveform.shape[1] // samples * samples]
    pieces = np.split(cut, range(samples, cut.shape[1], samples), axis=1)
    return [
        (number, piece)
        for number, piece in enumerate(pieces)
        if piece.size and np.sqrt(np.mean(piece**2)) >= LEAST_RMS
    ]


def reconstruct_clips(
    codec: EncoderDecoder, clips: Sequence[Clip], denoising_steps: int, seed: int
) -> Iterator[Reconstruction]:
    """Yields each clip encoded, decoded from the noise of `seed`, and measured.

    Raises:
      InputError: if the model gives NaN.
    """
    rate = codec.config.spectrogram.sample_rate
    for clip in clips:
        waveform = codec.reconstruct(clip.waveform, denoising_steps, seed)
        yield Reconstruction(clip, waveform, metrics.measure(clip.waveform, waveform, rate))


def measure_noise_levels(codec: EncoderDecoder, clips: Sequence[Clip]) -> dict[str, float]:
    """Loss, error and the latents' gain by noise level: see `noise_bins.name_figures`.

    On crops as in held-out evaluation: 64 frames of the spectrogram, fewer if the clips are
    shorter.

    Args:
      codec: the model.
      clips: all of one length.
    """
    spectrogram, least = codec.config.spectrogram, codec.config.time_downsampling
    fitting = min(spectrogram.frames(clips[0].waveform.shape[1]), _CROP_FRAMES)
    if fitting < least:  # not a latent vector's
        clips = [Clip(clip.name, codec.pad(clip.waveform)) for clip in clips]
    samples = spectrogram.samples(max(fitting // least, 1) * least)
    measure = noise_bins.make_measure(codec.model, _HUBER_SCALE, _DELTA)
    figures = measure(codec.params, to_spectrogram(cut_crops(clips, samples), spectrogram))
    return noise_bins.name_figures(figures, codec.config.noise)


def write_media(folder: pathlib.Path, result: Reconstruction, sample_rate: int) -> None:
    """Writes original and reconstruction as WAV, and both as a picture."""
    name, original, figures = result.clip.name, result.clip.waveform, result.figures
    files.write(folder / f'{name}.original.wav', original, sample_rate)
    files.write(folder / f'{name}.wav', result.waveform, sample_rate)
    title = (
        f'{name}: SI-SDR {figures["si_sdr"]:.2f} dB, LSD {figures["lsd"]:.2f} dB, '
        f'mel {figures["mel"]:.3f}'
    )
    picture = draw_comparison(original, result.waveform, sample_rate, title)
    save_picture(folder / f'{name}.png', picture)

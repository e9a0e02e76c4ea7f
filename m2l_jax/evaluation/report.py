"""Pictures of a reconstruction beside its original."""

import os
import pathlib

import numpy as np
from matplotlib.figure import Figure

from m2l_jax.evaluation.metrics import power_spectrogram_db

_LOWEST_DB, _HIGHEST_DB = -100, -10


def draw_comparison(
    path: str | os.PathLike[str],
    original: np.ndarray,
    reconstruction: np.ndarray,
    sample_rate: int,
    title: str,
) -> None:
    """Writes a PNG: the original's waveform and spectrogram above the reconstruction's.

    Args:
      path: of the PNG.
      original, reconstruction: `[channels, samples]`; channels are mixed for the picture.
      sample_rate: in Hz.
      title: shown on top.
    """
    figure = Figure(figsize=(12, 10), layout='constrained')
    axes = figure.subplots(4, 1, sharex=True, height_ratios=(1, 3, 1, 3))
    figure.suptitle(title)
    signals = (('Original', original), ('Reconstruction', reconstruction))
    for (name, signal), (waveform_axis, spectrogram_axis) in zip(
        signals, (axes[:2], axes[2:]), strict=True
    ):
        _draw_waveform(waveform_axis, name, signal, sample_rate)
        image = _draw_spectrogram(spectrogram_axis, signal, sample_rate)
    axes[-1].set_xlabel('time in s')
    figure.colorbar(image, ax=axes[1::2], label='level in dB')
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _draw_waveform(axis, name: str, signal: np.ndarray, sample_rate: int) -> None:
    mix = signal.mean(axis=0)
    axis.plot(np.arange(len(mix)) / sample_rate, mix, linewidth=0.4, color='tab:blue')
    axis.set(title=name, ylabel='amplitude', ylim=(-1, 1))


def _draw_spectrogram(axis, signal: np.ndarray, sample_rate: int):
    levels = power_spectrogram_db(signal.mean(axis=0)).T  # [F, T]
    image = axis.imshow(
        levels,
        origin='lower',
        aspect='auto',
        interpolation='nearest',
        extent=(0, signal.shape[1] / sample_rate, 0, sample_rate / 2000),
        vmin=_LOWEST_DB,
        vmax=_HIGHEST_DB,
        cmap='magma',
    )
    axis.set(ylabel='frequency in kHz')
    return image

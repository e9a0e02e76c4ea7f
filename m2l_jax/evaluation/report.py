"""Pictures of a reconstruction beside its original."""

import os

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from m2l_jax.evaluation.metrics import HOP, power_spectrogram_db
from m2l_jax.interface.paths import replaced_file

_LOWEST_DB, _HIGHEST_DB = -100, -10
_FILE_DPI, _LOG_DPI = 110, 75
_COLUMNS = 4096  # more than a picture has pixels across
_MOST_DRAWN = 1 << 18  # samples, six seconds


def draw_comparison(
    original: np.ndarray, reconstruction: np.ndarray, sample_rate: int, title: str
) -> Figure:
    """The original's waveform and spectrogram above the reconstruction's.

    Args:
      original, reconstruction: `[channels, samples]`, at least 2048 samples; channels are mixed for
        the picture.
      sample_rate: in Hz.
      title: shown on top.
    """
    figure = Figure(figsize=(12, 10), layout='constrained')
    axes = figure.subplots(4, 1, sharex=True, height_ratios=(1, 3, 1, 3))
    figure.suptitle(title, parse_math=False)  # a file's name may hold dollars
    signals = (('Original', original), ('Reconstruction', reconstruction))
    for (name, signal), (waveform_axis, spectrogram_axis) in zip(
        signals, (axes[:2], axes[2:]), strict=True
    ):
        _draw_waveform(waveform_axis, name, signal, sample_rate)
        image = _draw_spectrogram(spectrogram_axis, signal, sample_rate)
    axes[-1].set_xlabel('time in s')
    figure.colorbar(image, ax=axes[1::2], label='level in dB')
    return figure


def save_picture(path: str | os.PathLike[str], figure: Figure) -> None:
    """Writes a figure as PNG, whole or not at all; missing folders are made.

    Raises:
      InputError: if it cannot be written.
    """
    with replaced_file(path) as partial:
        figure.savefig(partial, dpi=_FILE_DPI, format='png')


def to_pixels(figure: Figure) -> np.ndarray:
    """A figure as `[height, width, 3]`, uint8; coarser than in a file, for a picture in a log."""
    figure.set_dpi(_LOG_DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]  # the figure is opaque


def _draw_waveform(axis, name: str, signal: np.ndarray, sample_rate: int) -> None:
    mix = signal.mean(axis=0)
    places, levels = np.arange(len(mix)), mix
    if len(mix) > _MOST_DRAWN:  # of more samples, the lowest and the highest of each column
        step = -(-len(mix) // _COLUMNS)
        begins = np.arange(0, len(mix), step)
        ends = [bound.reduceat(mix, begins) for bound in (np.minimum, np.maximum)]
        places, levels = np.repeat(begins, 2), np.stack(ends, axis=-1).ravel()
    axis.plot(places / sample_rate, levels, linewidth=0.4, color='tab:blue')
    axis.set(title=name, ylabel='amplitude', ylim=(-1, 1))


def _draw_spectrogram(axis, signal: np.ndarray, sample_rate: int):
    hop = max(HOP, signal.shape[1] // _COLUMNS)  # of an hour, not all frames
    levels = power_spectrogram_db(signal.mean(axis=0), hop).T  # [F, T]
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

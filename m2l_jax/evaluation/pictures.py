"""Pictures of reconstructions next to their originals, and of the curves of a training run."""

import os
from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from m2l_jax.evaluation.metrics import METRICS
from m2l_jax.evaluation.spectra import HOP, power_spectrogram_db
from m2l_jax.interface.paths import new_folder, replaced_file, write_json

Curve = Mapping[int, float]

# Panels with a line for each noise level: names, and the scalars' names without the level.
_BY_SIGMA = {
    'consistency loss by noise level': 'evaluation/loss_sigma_',
    'denoising error by noise level': 'evaluation/error_sigma_',
    'latent gain by noise level (1 if unused)': 'evaluation/latent_gain_sigma_',
    'latent gain over the mean latents (1 if unused)': 'evaluation/latent_gain_over_mean_sigma_',
    'latent gain of magnitudes (1 if unused)': 'evaluation/latent_gain_magnitude_sigma_',
}
# Panels with a line for training and one for the held-out clips.
_LATENTS = {
    'standard deviation of the latents': 'latent_std',
    'part of the latents at -1 or 1': 'latents_saturated',
    'part of the levels in use': 'code_use',
    'entropy of a token in bits': 'code_entropy',
}
_TOKENS = 'tokens'  # label of the lines of a discrete model's tokens
_LOG_SCALES = ('consistency loss', 'denoising error')  # at the beginning of the name

_LOWEST_DB, _HIGHEST_DB = -100, -10
_FILE_DPI, _LOG_DPI = 110, 75
_LIGHTEST = 0.8  # of the colour map, whose end is a pale yellow
_COLUMNS = 4096  # more than a picture has pixels across
_MOST_DRAWN = 1 << 18  # samples, six seconds


def draw_comparison(
    original: np.ndarray, reconstruction: np.ndarray, sample_rate: int, title: str
) -> Figure:
    """Draws the original's waveform and spectrogram above the reconstruction's.

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


def draw_curves(curves: Mapping[str, Curve], title: str) -> Figure:
    """Draws the loss, the latents' spread, and the figures of held-out clips over the steps.

    Args:
      curves: values by step, by their names in TensorBoard; panels without values are left out.
      title: shown on top.
    """
    panels = {'consistency loss, in training': {'': curves.get('loss', {})}}
    for name, prefix in _BY_SIGMA.items():
        levels = [tag.removeprefix(prefix) for tag in curves if tag.startswith(prefix)]
        panels[name] = {
            f'σ = {level}': curves[prefix + level] for level in sorted(levels, key=float)
        }
    for name, tag in _LATENTS.items():
        lines = {'training': tag, 'held-out clips': f'evaluation/{tag}'}
        panels[name] = {label: curves[tag] for label, tag in lines.items() if tag in curves}
    for name, metric in METRICS.items():
        curve, of_tokens = (curves.get(f'evaluation/{each}{name}', {}) for each in ('', 'tokens_'))
        lines = {'latents': curve, _TOKENS: of_tokens} if of_tokens else {'': curve}
        panels[f'{metric.heading}, held-out clips'] = lines
    panels = {name: lines for name, lines in panels.items() if any(lines.values())}
    columns = min(len(panels), 2 if len(panels) <= 8 else 3)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(7 * columns, 3.2 * rows), layout='constrained')
    figure.suptitle(title, parse_math=False)
    first = None
    for number, (name, lines) in enumerate(panels.items(), start=1):
        axis = figure.add_subplot(rows, columns, number, sharex=first)
        first = first or axis
        axis.set(title=name, yscale='log' if name.startswith(_LOG_SCALES) else 'linear')
        _draw_lines(axis, lines)
    for axis in figure.axes[-columns:]:
        axis.set_xlabel('steps')
    return figure


def write_curves(curves: Mapping[str, Curve], output: str | os.PathLike[str], title: str) -> None:
    """Writes `curves.json` and `curves.png` into a folder, which is made if missing.

    Raises:
      InputError: if they cannot be written.
    """
    as_json = {
        name: {'step': list(curve), 'value': list(curve.values())} for name, curve in curves.items()
    }
    picture = draw_curves(curves, title)
    with new_folder(output) as folder:
        write_json(folder / 'curves.json', as_json, indent=None)
        save_picture(folder / 'curves.png', picture)


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


def _draw_lines(axis, lines: Mapping[str, Curve]) -> None:
    colours = matplotlib.colormaps['viridis']
    for number, (label, curve) in enumerate(lines.items()):
        colour = colours(_LIGHTEST * number / max(1, len(lines) - 1))
        style = {'color': colour, 'linewidth': 1, 'linestyle': '--' if label == _TOKENS else '-'}
        axis.plot(list(curve), list(curve.values()), label=label, **style)
    if any(lines):  # labels
        axis.legend(fontsize='x-small', ncols=2)
    axis.grid(alpha=0.3)


def _draw_waveform(axis, name: str, signal: np.ndarray, sample_rate: int) -> None:
    mix = signal.mean(axis=0)
    places, levels = np.arange(len(mix)), mix
    if len(mix) > _MOST_DRAWN:  # only the lowest and the highest of each column
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

"""A picture of how a training went."""

from collections.abc import Mapping

import matplotlib
from matplotlib.figure import Figure

Curve = Mapping[int, float]

# Panels: names, and scalars' names in TensorBoard, without the level where there is one line each.
_BY_SIGMA = {
    'consistency loss by noise level': 'evaluation/loss_sigma_',
    'denoising error by noise level': 'evaluation/error_sigma_',
    'latent gain by noise level (1 if unused)': 'evaluation/latent_gain_sigma_',
    'latent gain of magnitudes (1 if unused)': 'evaluation/latent_gain_magnitude_sigma_',
}
_ON_CLIPS = {
    'mel distance, held-out clips': 'evaluation/mel',
    'SI-SDR in dB, held-out clips': 'evaluation/si_sdr',
    'log-spectral distance in dB, held-out clips': 'evaluation/lsd',
}
_LOG_SCALES = ('consistency loss', 'denoising error')  # at the beginning of the name


def draw_curves(curves: Mapping[str, Curve], title: str) -> Figure:
    """The loss in training, and, of held-out clips, figures by noise level and of the waveforms.

    Args:
      curves: values by step, by their names in TensorBoard; those that are missing are left out.
      title: shown on top.
    """
    panels = {'consistency loss, in training': {'': curves.get('loss', {})}}
    for name, prefix in _BY_SIGMA.items():
        levels = [tag.removeprefix(prefix) for tag in curves if tag.startswith(prefix)]
        panels[name] = {
            f'σ = {level}': curves[prefix + level] for level in sorted(levels, key=float)
        }
    for name, tag in _ON_CLIPS.items():
        panels[name] = {'': curves.get(tag, {})}
    panels = {name: lines for name, lines in panels.items() if any(lines.values())}
    columns = 2 if len(panels) > 1 else 1
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


def _draw_lines(axis, lines: Mapping[str, Curve]) -> None:
    colours = matplotlib.colormaps['viridis']
    for number, (label, curve) in enumerate(lines.items()):
        colour = colours(number / max(1, len(lines) - 1))
        axis.plot(list(curve), list(curve.values()), label=label, color=colour, linewidth=1)
    if len(lines) > 1:
        axis.legend(fontsize='x-small', ncols=2)
    axis.grid(alpha=0.3)

"""A picture of how a training went."""

from collections.abc import Mapping

import matplotlib
from matplotlib.figure import Figure

Curve = Mapping[int, float]

_BY_SIGMA = {
    'consistency loss by noise level': 'evaluation/loss_sigma_',
    'denoising error by noise level': 'evaluation/error_sigma_',
}
_ON_CLIPS = {
    'SI-SDR in dB, held-out clips': 'evaluation/si_sdr',
    'log-spectral distance in dB, held-out clips': 'evaluation/lsd',
}


def draw_curves(curves: Mapping[str, Curve], title: str) -> Figure:
    """The loss in training, and, of held-out clips, losses by noise level, SI-SDR and distance.

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
    figure = Figure(figsize=(9, 3.2 * len(panels)), layout='constrained')
    figure.suptitle(title, parse_math=False)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (name, lines) in zip(axes, panels.items(), strict=True):
        axis.set(title=name, yscale='linear' if name in _ON_CLIPS else 'log')
        _draw_lines(axis, lines)
    axes[-1].set_xlabel('steps')
    return figure


def _draw_lines(axis, lines: Mapping[str, Curve]) -> None:
    colours = matplotlib.colormaps['viridis']
    for number, (label, curve) in enumerate(lines.items()):
        colour = colours(number / max(1, len(lines) - 1))
        axis.plot(list(curve), list(curve.values()), label=label, color=colour, linewidth=1)
    if len(lines) > 1:
        axis.legend(fontsize='x-small', ncols=2)
    axis.grid(alpha=0.3)

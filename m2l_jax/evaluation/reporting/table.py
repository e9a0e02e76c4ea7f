"""A report's table in text."""

import math
from collections.abc import Mapping
from typing import Any

from m2l_jax.audio.suffixes import LeftOut
from m2l_jax.evaluation.embeddings.distances import LEAST_CLIPS
from m2l_jax.evaluation.metrics import ALL_METRICS
from m2l_jax.interface.tables import format_table

_FURTHER = {
    'latent_gain': 'latent gain (higher; 1 if latents are unused)',
    'latent_gain_magnitude': 'latent gain of magnitudes (higher)',
    'latent_std': 'spread of the latents',
    'latents_saturated': 'share of the latents at -1 or 1',
    'code_use': 'share of the levels in use',
    'code_entropy': 'entropy of a token in bits',
    'times_real_time': 'times real time',
    'kilobits_a_second': 'kbit/s of a channel, latents in 16 bits',
}
_DISTANCES = {
    'fad': 'Fréchet distance (lower), {}',
    'fad_inf': 'Fréchet distance, extrapolated to many pieces, {}',
    'kad': 'kernel distance (lower), {}',
}


def describe_report(report: dict[str, Any]) -> str:
    """A table of the means, with their intervals, and what was left out, in lines."""
    systems = report['systems']
    count = len(systems[report['checkpoint']]['clips'])
    seeds = ', '.join(map(str, report['seeds']))
    rows = [(f'{count} pieces of {report["seconds"]:g} s, seed {seeds}', *systems)]
    rows += metric_rows(report) + distance_rows(report)
    for name, label in _FURTHER.items():
        values = [
            {**system, **system.get('by_noise_level', {})}.get(name) for system in systems.values()
        ]
        if any(value is not None for value in values):
            rows.append((label, *('' if value is None else f'{value:.4g}' for value in values)))
    lines = [format_table(rows), 'In brackets: the interval of 95 %, by the chance of the pieces.']
    if count < LEAST_CLIPS:
        lines.append(f'Of fewer than {LEAST_CLIPS} pieces, intervals and distances say little.')
    lines += report['left_out_metrics'].values()
    lines += [f'skipped: {reason}' for reason in report['skipped'].values()]
    return '\n'.join(filter(None, (*lines, LeftOut(**report['left_out']).describe())))


def metric_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows of a heading and each system's mean, with its interval."""
    systems = report['systems']
    count = len(systems[report['checkpoint']]['clips'])
    return [
        (heading, *(_cell(system, name, count) for system in systems.values()))
        for name, heading in report['metrics'].items()
    ]


def distance_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows of a heading and each system's distance, with its interval, by embedding and kind."""
    rows = []
    for name, label in report['embeddings'].items():
        systems = report['systems'].values()
        distances = [system.get('distances', {}).get(name) for system in systems]
        for key, heading in _DISTANCES.items():
            rows.append((heading.format(label), *(_distance(each, key) for each in distances)))
    return rows


def _cell(system: Mapping[str, Any], name: str, count: int) -> str:
    digits = ALL_METRICS[name].digits
    low, high = system['interval'][name]
    counted = system['counted'][name]
    of = '' if counted == count else f' of {counted}'
    return f'{system["mean"][name]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]{of}'


def _distance(distances: Mapping[str, Any] | None, key: str) -> str:
    if distances is None:
        return ''
    low, high = distances['interval'].get(key, (math.nan, math.nan))
    interval = '' if math.isnan(low) else f' [{low:.4g}, {high:.4g}]'
    return f'{distances[key]:.4g}{interval}'

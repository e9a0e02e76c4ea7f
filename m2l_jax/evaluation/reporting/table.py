"""A report's table in text."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from m2l_jax.audio.suffixes import LeftOut
from m2l_jax.evaluation.embeddings.distances import LEAST_CLIPS
from m2l_jax.evaluation.metrics import ALL_METRICS, MISSING
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

# Why a figure may be missing: what it takes, by the beginning of its row's heading.
_TAKES = {
    'SI-SDR': 'sound, in the reconstruction too',
    'SNR': 'sound, and a difference',
    'spectral-centroid bias': 'sound on a channel of both',
    'loudness bias': 'sound above -70 LUFS, on five channels at most',
    'inter-channel': 'two channels with sound',
    'ViSQOL': 'sound, and pieces of 0.96 s',
    'note F-measure': 'notes in the original',
    'Fréchet distance, extrapolated': f'{LEAST_CLIPS} pieces',
    'Fréchet distance': 'two embeddings',
    'kernel distance': 'two pieces that differ',
    'latent gain': 'crops that differ',
    'times real time': 'a second piece, as the first compiles',
}


def describe_report(report: dict[str, Any]) -> str:
    """A table of the means, with their intervals, and what is missing and why, in lines."""
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
            rows.append((label, *('' if value is None else _number(value) for value in values)))
    lines = [format_table(rows), 'In brackets: the interval of 95 %, by the chance of the pieces.']
    if count < LEAST_CLIPS:
        lines.append(f'Of fewer than {LEAST_CLIPS} pieces, intervals and distances say little.')
    lines += _reasons(rows)
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
    form = f'.{ALL_METRICS[name].digits}f'
    counted = system['counted'][name]
    if not counted:
        return MISSING
    of = '' if counted == count else f' of {counted}'
    return f'{system["mean"][name]:{form}}{_interval(system["interval"][name], form)}{of}'


def _distance(distances: Mapping[str, Any] | None, key: str) -> str:
    if distances is None:
        return ''
    interval = distances['interval'].get(key, (math.nan, math.nan))
    return _number(distances[key]) + _interval(interval, '.4g')


def _number(value: float) -> str:
    return MISSING if math.isnan(value) else f'{value:.4g}'


def _interval(ends: Sequence[float], form: str) -> str:
    low, high = ends
    return '' if math.isnan(low) else f' [{low:{form}}, {high:{form}}]'


def _reasons(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line for each kind of row with a missing figure."""
    named = [heading for heading, *cells in rows if MISSING in cells]
    begins = (next((b for b in _TAKES if name.startswith(b)), None) for name in named)
    return [
        f'{MISSING}: {begin} takes {_TAKES[begin]}.' for begin in dict.fromkeys(begins) if begin
    ]

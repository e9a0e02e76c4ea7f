"""A page for listening to reconstructions beside their originals, openly and blind."""

import base64
import hashlib
import html
import io
import json
import math
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import matplotlib.image
import numpy as np
import soundfile
from matplotlib.ticker import MaxNLocator

from m2l_jax.evaluation import statistics
from m2l_jax.evaluation.listening.stimuli import (
    ANCHORS,
    Comparison,
    anchor_filters,
    apply_filter,
    check_comparisons,
    matching_gains,
)
from m2l_jax.evaluation.metrics import ALL_METRICS, Metric
from m2l_jax.evaluation.spectra import HOP, power_spectrogram_db
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import new_folder, replaced_file

Figures = Mapping[str, Mapping[str, Mapping[str, float]]]  # by model, clip and metric

_ASSETS = pathlib.Path(__file__).parents[2] / 'assets' / 'listening'

# Quality 8 of Vorbis, about 260 kbit/s in stereo: 30 clips of 10 s with two models take 31 MB of a
# page, and 93 MB as FLAC.
_VORBIS = {'format': 'OGG', 'subtype': 'VORBIS', 'compression_level': 0.2}
_WRITE_BLOCK = 1 << 16  # libsndfile's Vorbis encoder overflows its stack on one very long write
_LOWEST_RATE, _HIGHEST_RATE = 8000, 96_000  # that every browser decodes to

# Of the spectrograms: a JPEG has an eighth of a PNG's bytes.
_COLUMNS, _BINS_A_ROW = 600, 4
_LOWEST_DB, _HIGHEST_DB = -100, -10
_JPEG = {'format': 'jpeg', 'pil_kwargs': {'quality': 80}}

# Of the plots, in pixels.
_WIDTH, _MARGIN, _STRIP, _AXIS, _LABEL = 360, 12, 44, 24, 15
_COLOURS = 8  # of the style sheet


def write_page(
    folder: str | os.PathLike[str], clips: Sequence[Comparison], figures: Figures, title: str
) -> pathlib.Path:
    """Writes `index.html`, which holds all that it needs, into a folder; returns its path.

    The page plays each clip's original and reconstructions equally loud and switches between them
    at the same sample. It also runs blind tests after ITU-R BS.1534 (MUSHRA), and shows `figures`
    as a table and as plots.

    Args:
      folder: made if missing.
      clips: all of one rate, with the same models.
      figures: models without sound, baselines say, may be among them. Metrics that are not in
        `ALL_METRICS` are shown by their names.
      title: of the page.

    Raises:
      InputError: if clips do not fit together, or the page cannot be written.
    """
    check_comparisons(clips)
    rate, models = clips[0].sample_rate, list(clips[0].reconstructions)
    if not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
        raise InputError(
            f'clips of {rate} Hz do not play in every browser: resample them to a rate from '
            f'{_LOWEST_RATE} to {_HIGHEST_RATE} Hz'
        )
    filters = anchor_filters(rate)
    figures = {model: {} for model in models} | dict(figures)  # a model has one colour everywhere
    data = {
        'title': title,
        'rate': rate,
        'models': models,
        'anchors': [
            {'hertz': ANCHORS[name][0], 'taps': np.round(taps, 9).tolist()}
            for name, taps in filters.items()
        ],
        'clips': [_describe(clip, filters) for clip in clips],
    }
    data['key'] = hashlib.blake2b(json.dumps(data).encode(), digest_size=8).hexdigest()
    parts = {
        'title': html.escape(title),
        'style': _asset('page.css'),
        'script': _asset('player.js') + _asset('page.js'),
        'table': make_table(figures),
        'plots': make_plots(figures),
        'data': json.dumps(data).replace('<', r'\u003c'),  # a name may hold the end of a script
        'sounds': '\n'.join(
            f'<script type="text/plain" id="sound-{place}">{_encode(sound, rate)}</script>'
            for place, sound in _places(clips)
        ),
    }
    page = re.sub(r'\{\{(\w+)\}\}', lambda match: parts[match[1]], _asset('page.html'))
    with new_folder(folder) as made, replaced_file(made / 'index.html') as partial:
        partial.write_text(page, encoding='utf-8', errors='replace')
    return pathlib.Path(folder, 'index.html')


def make_table(figures: Figures) -> str:
    """Makes an HTML table of figures: a row of means for each model, then one for each clip."""
    metrics = _metrics(figures)
    if not metrics:
        return ''
    headings = ['clip', 'model', *(metric.heading for metric in metrics.values())]
    means = {
        model: {
            name: statistics.mean(list(_column(figures, model, name).values())) for name in metrics
        }
        for model in figures
    }
    best = {
        name: metric.best(row[name] for row in means.values()) for name, metric in metrics.items()
    }
    clips = dict.fromkeys(clip for by_clip in figures.values() for clip in by_clip)
    rows = [
        _row(clip, model, figures[model][clip], metrics)
        for clip in clips
        for model in figures
        if clip in figures[model]
    ]
    heads = ''.join(
        f'<th scope="col" aria-sort="none"><button>{html.escape(heading)}</button></th>'
        for heading in headings
    )
    tops = [
        _row(f'mean of {len(figures[model])}', model, row, metrics, best)
        for model, row in means.items()
    ]
    return (
        f'<table id="table"><thead><tr>{heads}</tr></thead>\n<tbody class="means">'
        + '\n'.join(tops)
        + '</tbody>\n<tbody class="clips">'
        + '\n'.join(rows)
        + '</tbody></table>'
    )


def make_plots(figures: Figures) -> str:
    """Makes an SVG for each metric: all clips as dots, quartiles as a box, and the median."""
    return '\n'.join(_plot(figures, name, metric) for name, metric in _metrics(figures).items())


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding='utf-8')


def _describe(clip: Comparison, filters: Mapping[str, np.ndarray]) -> dict:
    """A clip as the page's script reads it; gains are of original, models and anchors."""
    sounds = clip.sounds()
    anchors = [apply_filter(clip.original, taps) for taps in filters.values()]
    gains = matching_gains([*sounds, *anchors], clip.sample_rate)
    return {
        'name': clip.name,
        'gains': [float(f'{gain:.6g}') for gain in gains],
        'pictures': [_picture(sound) for sound in sounds],
    }


def _places(clips: Sequence[Comparison]) -> Iterator[tuple[str, np.ndarray]]:
    for number, clip in enumerate(clips):
        for source, sound in enumerate(clip.sounds()):
            yield f'{number}-{source}', sound


def _encode(waveform: np.ndarray, sample_rate: int) -> str:
    """A file of Ogg Vorbis, in base64."""
    content = io.BytesIO()
    with soundfile.SoundFile(content, 'w', sample_rate, len(waveform), **_VORBIS) as file:
        for begin in range(0, waveform.shape[1], _WRITE_BLOCK):
            file.write(waveform[:, begin : begin + _WRITE_BLOCK].T)
    return base64.b64encode(content.getvalue()).decode()


def _picture(waveform: np.ndarray) -> str:
    """The spectrogram of the mix, from 0 Hz to half the rate, as the address of a JPEG."""
    hop = max(HOP // 4, waveform.shape[1] // _COLUMNS)
    levels = power_spectrogram_db(waveform.mean(axis=0), hop)[:, :-1]
    rows = levels.reshape(len(levels), -1, _BINS_A_ROW).max(axis=-1).T  # [256, T]
    scale = {'vmin': _LOWEST_DB, 'vmax': _HIGHEST_DB, 'cmap': 'magma', 'origin': 'lower'}
    content = io.BytesIO()
    matplotlib.image.imsave(content, rows, **scale, **_JPEG)
    return f'data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}'


def _metrics(figures: Figures) -> dict[str, Metric]:
    """Those that any clip has, `ALL_METRICS` first."""
    names = [name for clips in figures.values() for row in clips.values() for name in row]
    known = {name: metric for name, metric in ALL_METRICS.items() if name in names}
    return known | {
        name: Metric(None, name) for name in dict.fromkeys(names) if name not in ALL_METRICS
    }


def _column(figures: Figures, model: str, name: str) -> dict[str, float]:
    """A metric by clip."""
    return {clip: row[name] for clip, row in figures[model].items() if name in row}


def _row(
    clip: str,
    model: str,
    row: Mapping[str, float],
    metrics: Mapping[str, Metric],
    best: Mapping[str, float | None] | None = None,
) -> str:
    cells = []
    for name, metric in metrics.items():
        value = row.get(name, math.nan)
        mark = ' class="best"' if best and value == best[name] else ''
        text = '–' if math.isnan(value) else _to_text(value, metric.digits)
        cells.append(f'<td{mark} data-value="{json.dumps(float(value))}">{text}</td>')
    names = f'<th scope="row">{html.escape(clip)}</th><td>{html.escape(model)}</td>'
    return f'<tr>{names}{"".join(cells)}</tr>'


def _to_text(value: float, digits: int) -> str:
    return f'{value:.{digits}f}'.replace('-', '−')


def _plot(figures: Figures, name: str, metric: Metric) -> str:
    columns = {model: _column(figures, model, name) for model in figures}
    columns = {
        model: {clip: value for clip, value in column.items() if math.isfinite(value)}
        for model, column in columns.items()
    }
    values = [value for column in columns.values() for value in column.values()]
    if not values:
        return ''
    ticks = MaxNLocator(5).tick_values(min(values), max(values))
    height = _STRIP * len(columns) + _AXIS

    def place(value: float) -> str:
        share = (value - ticks[0]) / (ticks[-1] - ticks[0])
        return f'{_MARGIN + share * (_WIDTH - 2 * _MARGIN):.1f}'

    parts = [
        f'<line class="grid" x1="{place(tick)}" x2="{place(tick)}" y1="0" y2="{height - _AXIS}"/>'
        f'<text class="tick" x="{place(tick)}" y="{height - 8}">{tick:g}</text>'.replace('>-', '>−')
        for tick in ticks
    ]
    for number, (model, column) in enumerate(columns.items()):
        parts += _strip(number, model, column, place, metric.digits)
    return (
        f'<figure><figcaption>{html.escape(metric.heading)}</figcaption><svg role="img" '
        f'aria-label="{html.escape(metric.heading)} of each clip, by model" '
        f'viewBox="0 0 {_WIDTH} {height}">{"".join(parts)}</svg></figure>'
    )


def _strip(
    number: int,
    model: str,
    column: Mapping[str, float],
    place: Callable[[float], str],
    digits: int,
) -> Iterator[str]:
    """A model's part of a plot; `place` turns a figure into pixels."""
    top = _STRIP * number
    yield f'<text x="2" y="{top + _LABEL - 3}">{html.escape(model)}</text>'
    if not column:
        return
    middle = top + (_LABEL + _STRIP) / 2
    low, median, high = np.percentile(list(column.values()), [25, 50, 75])
    width = float(place(high)) - float(place(low))
    yield (
        f'<g class="colour-{number % _COLOURS}"><title>median {_to_text(median, digits)}</title>'
        f'<rect x="{place(low)}" y="{middle - 9}" width="{width:.1f}" height="18"/>'
        f'<line x1="{place(median)}" x2="{place(median)}" y1="{middle - 12}" y2="{middle + 12}"/>'
    )
    for index, (clip, value) in enumerate(column.items()):
        offset = 16 * (index * 0.618 % 1 - 0.5)  # so that equal figures do not hide each other
        yield (
            f'<circle cx="{place(value)}" cy="{middle + offset:.1f}" r="3">'
            f'<title>{html.escape(clip)}: {_to_text(value, digits)}</title></circle>'
        )
    yield '</g>'

"""Figures of models as parts of an HTML page: a table and plots."""

import html
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from m2l_jax.evaluation import statistics
from m2l_jax.evaluation.metrics import ALL_METRICS, MISSING, Metric

Figures = Mapping[str, Mapping[str, Mapping[str, float]]]  # by model, clip and metric

# Of the plots, in pixels.
_WIDTH, _MARGIN, _STRIP, _AXIS, _LABEL = 360, 20, 44, 24, 15
_COLOURS = 8  # of the style sheet


def make_table(figures: Figures, compared: Collection[str]) -> str:
    """Makes an HTML table of `ALL_METRICS`, '' without any: means by model, then a row a clip.

    Means are over the finite figures, with the interval of 95 % (`statistics`); the best of the
    models compared is marked, if there are several.
    """
    metrics = _metrics(figures)
    if not metrics:
        return ''
    headings = ('clip', 'model', *(metric.heading for metric in metrics.values()))
    head = ''.join(
        f'<th scope="col" aria-sort="none"><button>{html.escape(heading)}</button></th>'
        for heading in headings
    )
    clips = dict.fromkeys(clip for by_clip in figures.values() for clip in by_clip)
    rows = [
        _row(clip, model, (_cell(row[clip].get(name), each) for name, each in metrics.items()))
        for clip in clips
        for model, row in figures.items()
        if clip in row
    ]
    return (
        f'<table id="table"><thead><tr>{head}</tr></thead>\n'
        f'<tbody class="means">{_mean_rows(figures, metrics, compared)}</tbody>\n'
        f'<tbody class="clips">{"".join(rows)}</tbody></table>'
    )


def make_distance_table(systems: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Makes an HTML table of rows with a heading and a text for each system, '' without any."""
    if not rows:
        return ''
    head = ''.join(f'<th scope="col">{html.escape(name)}</th>' for name in ('', *systems))
    lines = ''.join(
        f'<tr><th scope="row">{html.escape(heading)}</th>'
        f'{"".join(f"<td>{html.escape(text)}</td>" for text in texts)}</tr>\n'
        for heading, *texts in rows
    )
    return f'<table id="distances"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>'


def make_plots(figures: Figures) -> str:
    """Makes an SVG for each metric: all clips as dots, quartiles as a box, and the median."""
    return '\n'.join(_plot(figures, name, metric) for name, metric in _metrics(figures).items())


def _metrics(figures: Figures) -> dict[str, Metric]:
    names = {name for clips in figures.values() for row in clips.values() for name in row}
    return {name: metric for name, metric in ALL_METRICS.items() if name in names}


def _column(figures: Figures, model: str, name: str) -> dict[str, float]:
    """A metric's finite figures by clip."""
    rows = figures[model].items()
    return {clip: row[name] for clip, row in rows if math.isfinite(row.get(name, math.nan))}


def _mean_rows(figures: Figures, metrics: Mapping[str, Metric], compared: Collection[str]) -> str:
    rows: dict[str, list[str]] = {model: [] for model in figures}
    for name, metric in metrics.items():
        columns = {
            model: np.array(list(_column(figures, model, name).values())) for model in figures
        }
        means = {model: statistics.mean(values) for model, values in columns.items()}
        ranks = {
            model: _rank(value, metric)
            for model, value in means.items()
            if model in compared and not math.isnan(value)
        }
        for model, value in means.items():
            counted, count = len(columns[model]), len(figures[model])
            low, high = statistics.interval(columns[model])
            note = f' of {counted}' if 0 < counted < count else ''
            if counted > 1:
                note += f'<small>[{_text(low, metric)}, {_text(high, metric)}]</small>'
            best = len(compared) > 1 and ranks.get(model) == min(ranks.values(), default=math.inf)
            rows[model].append(_cell(value, metric, note, best))
    return ''.join(
        _row(f'mean of {len(figures[model])}', model, cells) for model, cells in rows.items()
    )


def _rank(value: float, metric: Metric) -> float:
    """A number that is lower for a better figure."""
    return abs(value) if metric.signed else -value if metric.higher_is_better else value


def _row(clip: str, model: str, cells: Iterable[str]) -> str:
    names = f'<th scope="row">{html.escape(clip)}</th><td>{html.escape(model)}</td>'
    return f'<tr>{names}{"".join(cells)}</tr>\n'


def _cell(value: float | None, metric: Metric, note: str = '', best: bool = False) -> str:
    value = math.nan if value is None else float(value)
    mark = ' class="best"' if best else ''
    return f'<td{mark} data-value="{json.dumps(value)}">{_text(value, metric)}{note}</td>'


def _text(value: float, metric: Metric) -> str:
    return MISSING if math.isnan(value) else f'{value:.{metric.digits}f}'.replace('-', '−')


def _plot(figures: Figures, name: str, metric: Metric) -> str:
    columns = {model: _column(figures, model, name) for model in figures}
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
        parts += _strip(number, model, column, place, metric)
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
    metric: Metric,
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
        f'<g class="colour-{number % _COLOURS}"><title>median {_text(median, metric)}</title>'
        f'<rect x="{place(low)}" y="{middle - 9}" width="{width:.1f}" height="18"/>'
        f'<line x1="{place(median)}" x2="{place(median)}" y1="{middle - 12}" y2="{middle + 12}"/>'
    )
    for index, (clip, value) in enumerate(column.items()):
        offset = 16 * (index * 0.618 % 1 - 0.5)  # so that equal figures do not hide each other
        yield (
            f'<circle cx="{place(value)}" cy="{middle + offset:.1f}" r="3">'
            f'<title>{html.escape(clip)}: {_text(value, metric)}</title></circle>'
        )
    yield '</g>'

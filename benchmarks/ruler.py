"""Measures the metrics themselves: their figures for degradations that people can rank.

    python -m benchmarks.ruler --input=/data/clips --output=benchmarks/results/ruler-cpu.json

Cuts each file of --input, the bundled held-out music if not given, into pieces of --seconds, and
degrades each as `degradations` has it. Prints the mean of each metric of `evaluate`, then for each
metric the degradations in its order, best first, and the bit rates and delays of coded files.
--embeddings chooses networks for Fréchet and kernel distances; none if empty.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from benchmarks import report
from benchmarks.degradations import DEGRADATIONS, Examined, examine
from benchmarks.options import words
from m2l_jax.evaluation.clips import Clip, cut_clips
from m2l_jax.evaluation.embeddings.choice import ENCODER, default_names
from m2l_jax.evaluation.embeddings.distances import measure_distances
from m2l_jax.evaluation.measuring.workers import Workers, core_count
from m2l_jax.evaluation.metrics import ALL_METRICS, find_available
from m2l_jax.interface import command
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.progress import progress

_RATE = 44_100
_DISTANCES = ('fad', 'fad_inf', 'kad')

_INPUT = flags.DEFINE_string(
    'input', 'm2l_jax/assets/heldout', 'Audio file or folder; several with commas between.'
)
_SECONDS = command.define_finite_float('seconds', 10.0, 'Of each piece.')
_EVERY = flags.DEFINE_integer('every', 1, 'Measure one of so many pieces.', lower_bound=1)
_PROCESSES = flags.DEFINE_integer(
    'processes', None, 'That degrade and measure; as many as cores if not given.', lower_bound=0
)
_METRICS = flags.DEFINE_list('metrics', list(ALL_METRICS), 'Names, of `evaluate`.')
_EMBEDDINGS = flags.DEFINE_list(
    'embeddings', None, 'For the distances, as of `evaluate`, without the encoder.'
)
_OUTPUT = report.define_output()

Figures = dict[str, dict[str, float]]  # by metric and degradation


def main() -> None:
    """Degrades, measures, prints and writes."""
    embeddings, missing = _embeddings()
    clips, *_ = cut_clips(_INPUT.value, _RATE, _SECONDS.value)
    clips = clips[:: _EVERY.value]
    chosen = words(_METRICS, list(ALL_METRICS))
    metrics, left_out = find_available({name: ALL_METRICS[name] for name in chosen})
    processes = core_count() if _PROCESSES.value is None else _PROCESSES.value
    found = examine_all(clips, list(metrics), embeddings, processes)
    figures = mean_figures(found, list(metrics)) | distances(found)
    coded = describe_coded(found)
    result = {
        'input': f'{len(clips)} pieces of {_SECONDS.value:g} s',
        'means': figures,
        'orders': {name: order(name, means) for name, means in figures.items()},
        'coded': coded,
        'left_out': left_out,
    }
    rows = [(result['input'], *DEGRADATIONS)]
    rows += [(heading(name), *(f'{x:.4g}' for x in row.values())) for name, row in figures.items()]
    report.publish(result, rows, _OUTPUT.value)
    for name, names in result['orders'].items():
        print(f'{heading(name)}: {" > ".join(names)}')
    for name, facts in coded.items():
        print(f'{name}: {facts["kilobits"]:.1f} kbit/s, samples of delay {facts["delays"]}')
    print(*filter(None, (*left_out.values(), missing)), sep='\n')


def _embeddings() -> tuple[list[str], str]:
    """Names, and a line on what is missing, if anything."""
    if _EMBEDDINGS.value is None:
        return default_names()
    if ENCODER in _EMBEDDINGS.value:
        raise InputError(f'--embeddings={ENCODER} needs a model: m2l_jax.evaluate measures by it')
    return _EMBEDDINGS.value, ''


def examine_all(
    clips: Sequence[Clip], metrics: Sequence[str], embeddings: Sequence[str], processes: int
) -> dict[str, list[Examined]]:
    """Examines all clips under each degradation."""
    total = len(clips) * len(DEGRADATIONS)
    with Workers(processes) as workers, progress(total, 'piece', f'{total} pieces') as advance:
        pending = []
        for clip in clips:
            for name in DEGRADATIONS:
                arguments = clip.waveform, _RATE, name, metrics, embeddings
                pending.append(workers.submit(examine, *arguments))
                advance()
        found = [future.result() for future in pending]
    return {name: found[place :: len(DEGRADATIONS)] for place, name in enumerate(DEGRADATIONS)}


def mean_figures(found: Mapping[str, Sequence[Examined]], metrics: Sequence[str]) -> Figures:
    """Means over the pieces that have a figure; infinite ones count."""
    return {
        metric: {
            name: float(np.nanmean([each.figures[metric] for each in examined]))
            for name, examined in found.items()
        }
        for metric in metrics
    }


def distances(found: Mapping[str, Sequence[Examined]]) -> Figures:
    """Fréchet and kernel distances of each degradation from the original."""
    figures: Figures = {}
    for embedding in found['original'][0].embeddings:
        vectors = {
            name: [each.embeddings[embedding] for each in examined]
            for name, examined in found.items()
        }
        measured = {
            name: measure_distances(vectors['original'], each) for name, each in vectors.items()
        }
        for kind in _DISTANCES:
            figures[f'{kind} {embedding}'] = {name: each[kind] for name, each in measured.items()}
    return figures


def order(metric: str, means: Mapping[str, float]) -> list[str]:
    """The degradations from best to worst."""
    known = ALL_METRICS.get(metric)
    sign = -1 if known and known.higher_is_better else 1
    return sorted(means, key=lambda name: abs(means[name]) if sign > 0 else -means[name])


def heading(metric: str) -> str:
    """The metric with unit and direction."""
    return ALL_METRICS[metric].heading if metric in ALL_METRICS else f'{metric} (lower)'


def describe_coded(found: Mapping[str, Sequence[Examined]]) -> dict[str, Any]:
    """Mean bit rate of the files, and how many had which delay, of the degradations that code."""
    return {
        name: {
            'kilobits': float(np.mean([each.kilobits for each in examined])),
            'delays': dict(Counter(each.delay for each in examined).most_common()),
        }
        for name, examined in found.items()
        if examined[0].kilobits
    }


if __name__ == '__main__':
    command.run(main)

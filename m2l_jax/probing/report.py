"""Reports how much of a task shallow probes find in a model's features, beside baselines."""

import csv
import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.evaluation.baselines import untrained_model
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import new_folder, replaced_file, write_json
from m2l_jax.interface.progress import progress
from m2l_jax.interface.settings import check_seeds
from m2l_jax.interface.tables import format_table
from m2l_jax.probing.data_sets import read_examples
from m2l_jax.probing.examples import SPLITS, TEST, TRAIN, Example
from m2l_jax.probing.features import (
    POOLINGS,
    REPRESENTATIONS,
    Pooled,
    extract_pooled,
    extractors_of,
)
from m2l_jax.probing.labels import TASKS, choose_tasks
from m2l_jax.probing.probes import PROBES, Fitted, ProbeConfig, fit_probe, standardise
from m2l_jax.probing.scores import scores_of
from m2l_jax.probing.splits import Problem, assign_splits, count_several, make_problem

FREQUENCIES = 'no features'


def probe(
    checkpoint: str,
    data: str,
    output: str | os.PathLike[str],
    *,
    tasks: Sequence[str],
    data_home: str | os.PathLike[str] | None = None,
    representations: Sequence[str] = REPRESENTATIONS,
    baselines: bool = True,
    pooling: str = POOLINGS[0],
    kind: str = PROBES[0],
    seed: int = 0,
    seeds: int = 1,
    fold: int = 0,
    limit: int = 0,
) -> dict[str, Any]:
    """Writes `report.json` and `predictions.csv` into `output`.

    Args:
      checkpoint: the model, as `EncoderDecoder` takes it.
      data, data_home: see `data_sets.read_examples`.
      output: folder; made if missing.
      tasks: each `TASK` or `TASK:FIELD`, see `labels.TASKS`.
      representations: of `features.REPRESENTATIONS`.
      baselines: measures the same of the model untrained, and mel spectrograms, too.
      pooling: of `features.POOLINGS`.
      kind: of the probe, of `probes.PROBES`.
      seed: of splits that are drawn, of the untrained model, and of the first probe.
      seeds: probes, of `seed`, `seed` + 1, …; figures are their means.
      fold: which is tested, of data sets with folds.
      limit: clips that are drawn of a larger data set; 0 for all.

    Returns:
      The report. Its `tasks` have `systems`, and these, by the name of a score, the figure of each
      seed, their `mean`, the `interval` of 95 % of it and `seed_spread`, the standard deviation.

    Raises:
      InputError: if data or model cannot be read, or a task has nothing to learn or to score.
      Interrupted: after Ctrl-C or SIGTERM; nothing is written then.
    """
    fields = choose_tasks(tasks)
    _check(representations)
    check_seeds(seed, seeds)
    examples = read_examples(data, fields, data_home, limit, seed)
    splits = {name: assign_splits(examples, TASKS[name], seed, fold) for name in fields}
    for name, assigned in splits.items():
        make_problem(examples, assigned, TASKS[name])  # refuses before the features take hours
    codec = EncoderDecoder(checkpoint)
    config = ProbeConfig(kind)
    used = [number for number, own in enumerate(zip(*splits.values(), strict=True)) if any(own)]
    with new_folder(output) as folder:
        labelled = [examples[number] for number in used]
        pooled = _extract(codec, labelled, representations, baselines, pooling, seed)
        read = [used[place] for place in pooled.numbers]
        kept = [examples[number] for number in read]
        problems = {
            name: make_problem(kept, [assigned[number] for number in read], TASKS[name])
            for name, assigned in splits.items()
        }
        fitted = _fit(problems, pooled, config, range(seed, seed + seeds))
        report = {
            'checkpoint': checkpoint,
            'model': codec.model_id,
            'data': data,
            'clips': len(kept),
            'seconds': pooled.seconds,
            'left_out': pooled.left_out,
            'pooling': pooling,
            'probe': dataclasses.asdict(config),
            'seeds': list(range(seed, seed + seeds)),
            'fold': fold,
            'limit': limit,
            'tasks': {
                name: {
                    **_count_unlabelled(examples, name),
                    **_describe_task(name, problem, pooled, fitted[name]),
                }
                for name, problem in problems.items()
            },
        }
        write_json(folder / 'report.json', report)
        _write_predictions(folder / 'predictions.csv', kept, problems, fitted)
    return report


def describe_report(report: Mapping[str, Any]) -> str:
    """A table for each task, and what was left out, in lines."""
    lines = []
    for name, task in report['tasks'].items():
        headings = task['scores']
        title = f'{name}: {task["splits"][TEST]} test clips, {len(task["classes"])} classes'
        rows = [(title, 'numbers', *headings.values())]
        for system, found in task['systems'].items():
            rows.append((system, found['numbers'], *(_cell(found, score) for score in headings)))
        lines += [format_table(rows), *_describe_left_out(name, task), '']
    seeds = ', '.join(map(str, report['seeds']))
    lines.append(f'{report["probe"]["kind"]} probe, {report["pooling"]} over time, seed {seeds}')
    lines.append('In brackets: the interval of 95 % of the mean over test clips.')
    if left_out := report['left_out']:
        first = next(iter(left_out.values()))
        lines.append(f'{len(left_out)} clips left out: {first}' + (', …' * (len(left_out) > 1)))
    return '\n'.join(lines)


def _check(representations: Sequence[str]) -> None:
    unknown = [name for name in representations if name not in REPRESENTATIONS]
    if unknown or not representations:
        raise InputError(
            f'--features={",".join(representations)}: choose of {", ".join(REPRESENTATIONS)}'
        )


def _extract(
    codec: EncoderDecoder,
    examples: Sequence[Example],
    representations: Sequence[str],
    baselines: bool,
    pooling: str,
    seed: int,
) -> Pooled:
    untrained = untrained_model(codec, seed) if baselines else None
    extractors = extractors_of(codec, representations, untrained)
    with progress(len(examples), 'clip', f'features of {len(examples)} clips') as advance:
        return extract_pooled(examples, extractors, codec, pooling, advance)


def _fit(
    problems: Mapping[str, Problem], pooled: Pooled, config: ProbeConfig, seeds: Sequence[int]
) -> dict[str, dict[str, list[Fitted]]]:
    """The probes of each task and system, of every seed."""
    count = len(problems) * len(pooled.features) * len(seeds)
    fitted: dict[str, dict[str, list[Fitted]]] = {name: {} for name in problems}
    with progress(count, 'probe', f'{count} probes') as advance:
        for name, problem in problems.items():
            for system, features in pooled.features.items():
                scaled = standardise(features, problem)
                own = fitted[name][system] = []
                for seed in seeds:
                    own.append(fit_probe(scaled, problem, config, seed))
                    advance()
            fitted[name][FREQUENCIES] = [_frequencies(problem)]
    return fitted


def _frequencies(problem: Problem) -> Fitted:
    """Predicts, for every clip, how often each class is in training."""
    targets = problem.targets[TRAIN]
    counts = targets.sum(axis=0) if targets.ndim == 2 else np.bincount(targets)
    odds = np.log((counts + 1) / (len(targets) - counts + 1))
    return Fitted(np.tile(odds, (len(problem.targets[TEST]), 1)), 0.0, 0, float('nan'))


def _describe_task(
    name: str, problem: Problem, pooled: Pooled, fitted: Mapping[str, Sequence[Fitted]]
) -> dict[str, Any]:
    systems = {}
    for system, probes in fitted.items():
        logits = np.stack([each.scores for each in probes])
        features = pooled.features.get(system)
        systems[system] = {
            'numbers': 0 if features is None else features.shape[1],
            'learning_rates': [each.learning_rate for each in probes],
            'epochs': [each.epochs for each in probes],
        }
        for score, measured in scores_of(name).items():
            figures, interval = measured.measure(problem.targets[TEST], logits, problem.classes)
            systems[system][score] = {
                'seeds': figures,
                'mean': float(np.mean(figures)),
                'interval': interval,
                'seed_spread': float(np.std(figures)),
            }
    return {
        'classes': list(problem.classes),
        'splits': {split: len(problem.numbers[split]) for split in SPLITS},
        'unseen': dict(problem.unseen),
        'untested': list(problem.untested),
        'scores': {score: measured.heading for score, measured in scores_of(name).items()},
        'systems': systems,
    }


def _count_unlabelled(examples: Sequence[Example], name: str) -> dict[str, Any]:
    """Clips that the task can't use: those without a label, and those with several, by labels."""
    several = count_several(examples, TASKS[name])
    without = 0 if TASKS[name].is_tagging else sum(not each.labels[name] for each in examples)
    return {'unlabelled': without, 'several_labels': several}


def _describe_left_out(name: str, task: Mapping[str, Any]) -> list[str]:
    lines = [f'trained on {task["splits"][TRAIN]} clips, chosen on {task["splits"]["validation"]}']
    if task['unlabelled']:
        lines.append(f'clips without a label for {name}, left out: {task["unlabelled"]}')
    if several := task['several_labels']:
        first = next(iter(several)) + (', …' * (len(several) > 1))
        lines.append(
            f'clips with several labels ({first}), left out since {name} takes one: '
            f'{sum(several.values())}'
        )
    if task['unseen']:
        listed = ', '.join(f'{label} ({count})' for label, count in task['unseen'].items())
        lines.append(f'labels that training lacks, left out with so many clips: {listed}')
    if task['untested']:
        lines.append(
            f'tags on all or no test clips, without figures: {", ".join(task["untested"])}'
        )
    return lines


def _cell(found: Mapping[str, Any], score: str) -> str:
    low, high = found[score]['interval']
    return f'{found[score]["mean"]:.3f} [{low:.3f}, {high:.3f}]'


def _write_predictions(
    path: pathlib.Path,
    examples: Sequence[Example],
    problems: Mapping[str, Problem],
    fitted: Mapping[str, Mapping[str, Sequence[Fitted]]],
) -> None:
    """Writes a row for each task and test clip, with the predictions of the first seed's probes."""
    systems = list(next(iter(fitted.values())))
    with replaced_file(path) as partial, open(partial, 'w', newline='', encoding='utf-8') as file:
        rows = csv.writer(file)
        rows.writerow(('task', 'clip', 'labels', *systems))
        for name, problem in problems.items():
            logits = [fitted[name][system][0].scores for system in systems]
            for place, number in enumerate(problem.numbers[TEST]):
                example = examples[number]
                predicted = (_predicted(each[place], problem, name) for each in logits)
                rows.writerow((name, example.name, '|'.join(example.labels[name]), *predicted))


def _predicted(logits: np.ndarray, problem: Problem, task: str) -> str:
    if TASKS[task].is_tagging:
        chosen = zip(problem.classes, logits > 0, strict=True)
        return '|'.join(label for label, is_likely in chosen if is_likely)
    return problem.classes[int(np.argmax(logits))]

"""Figures of a report of `m2l_jax.evaluate`, for the card of the model that it measured."""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Collection
from typing import Any

from huggingface_hub import EvalResult

from m2l_jax.evaluation.quality import OF_TOKENS, SHAPED_NOISE, UNTRAINED
from m2l_jax.evaluation.reporting.table import distance_rows, metric_rows
from m2l_jax.interface.errors import InputError


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The part of a report that is about one model, beside the baselines.

    Attributes:
      description: of the pieces and of the decoding.
      rows: of a table: a heading, then each system's figures with their intervals.
      results: the model's means, for the Hub.
    """

    description: str
    rows: list[tuple[str, ...]]
    results: list[EvalResult]


def read_evaluation(path: str | os.PathLike[str], models: Collection[str]) -> Evaluation:
    """Reads a `report.json`.

    Args:
      path: the file.
      models: fingerprints of the model, one of which the report must have measured.

    Raises:
      InputError: if it is no such report, or one of other models.
    """
    try:
        report = _with_nan(json.loads(pathlib.Path(path).read_text('utf-8-sig')))
        systems = report['systems']
        name = next((each for each in systems if systems[each].get('model') in models), None)
        if name is None:
            raise InputError(
                f'{path} measured other models than this one: evaluate the checkpoint that you push'
            )
        chosen = (name, name + OF_TOKENS, UNTRAINED, SHAPED_NOISE)
        kept = {each: systems[each] for each in chosen if each in systems}
        return _summarise({**report, 'checkpoint': name, 'systems': kept})
    except OSError as error:
        raise InputError(f'{path} cannot be read ({error.strerror}): pass a report.json') from None
    except InputError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise InputError(f'{path} is no report.json of m2l_jax.evaluate: pass one') from None


def _summarise(report: dict[str, Any]) -> Evaluation:
    system = report['systems'][report['checkpoint']]
    count, seeds = len(system['clips']), ', '.join(map(str, report['seeds']))
    pieces = f'{count} pieces of {report["seconds"]:g} s'
    results = [
        EvalResult(
            task_type='audio-to-audio',
            task_name='Audio reconstruction',
            dataset_type='audio',
            dataset_name=pieces,
            metric_type=name,
            metric_name=heading,
            metric_value=system['mean'][name],
        )
        for name, heading in report['metrics'].items()
        if math.isfinite(system['mean'][name])
    ]
    steps = report['denoising_steps']
    description = f'{pieces}, decoded in {steps} step{"s" * (steps > 1)}, seed {seeds}'
    others = list(report['systems'])[1:]
    header = ('', 'this model', *others)
    return Evaluation(description, [header, *metric_rows(report), *distance_rows(report)], results)


def _with_nan(value: Any) -> Any:
    """NaN for each null, as which a report writes it."""
    if isinstance(value, dict):
        return {key: _with_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_nan(each) for each in value]
    return math.nan if value is None else value

"""The curves of a training run, out of its TensorBoard files."""

import os
import pathlib

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

Curves = dict[str, dict[int, float]]

_ALL = {'scalars': 0, 'images': 1, 'audio': 1}  # how many to keep: 0 is all of them


def read_curves(workdir: str | os.PathLike[str]) -> Curves:
    """Each curve's values by step, in the order of the steps.

    What was measured twice, for a run that was killed did some steps again, counts as the last
    time, whatever machine it was on.

    Args:
      workdir: the run's folder, which may have no curves yet.
    """
    points: dict[str, dict[int, tuple[float, float]]] = {}
    for path in pathlib.Path(workdir).glob('*.tfevents.*'):
        events = EventAccumulator(str(path), _ALL)
        events.Reload()
        for name in events.Tags()['scalars']:
            curve = points.setdefault(name, {})
            for event in events.Scalars(name):
                point = event.wall_time, event.value
                curve[event.step] = max(curve.get(event.step, point), point)
    return {
        name: {step: value for step, (_, value) in sorted(curve.items())}
        for name, curve in sorted(points.items())
    }

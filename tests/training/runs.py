"""Training runs that are looked at, and ended, from the inside."""

import contextlib

import jax
import numpy as np
import pytest

from m2l_jax.training import loop
from m2l_jax.training.monitor import Monitor


class Killed(Exception):
    """Ends a run as an error would that nothing catches."""


@contextlib.contextmanager
def watched(after_step=lambda step: None):
    """The metrics of each step trained meanwhile, `{step: {name: value}}`; calls what is given."""
    steps = {}
    write_metrics = Monitor.after_step

    def watch(monitor, step, metrics):
        write_metrics(monitor, step, metrics)
        steps[step] = {name: float(v) for name, v in metrics.items() if not np.ndim(v)}
        after_step(step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Monitor, 'after_step', watch)
        yield steps


@contextlib.contextmanager
def killed_after(last):
    """Kills the training within the block after step `last`; yields the metrics of its steps."""

    def kill(step):
        if step == last:
            raise Killed

    with watched(kill) as steps, pytest.raises(Killed):
        yield steps


def first_state(config, workdir, monkeypatch):
    """The state that a training starts or goes on from, as checkpoints hold it."""
    states = []

    def go_on(run, state):
        states.append(run.setup.to_stored(state))
        return state

    monkeypatch.setattr(loop._Run, 'go_on', go_on)
    loop.train_and_evaluate(config, workdir)
    return states[0]


def assert_identical(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)

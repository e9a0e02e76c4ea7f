import contextlib
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import warnings

import jax
import numpy as np
import pytest

from benchmarks import small_model
from m2l_jax.checkpoint.store import CheckpointStore, load_model, save_model
from m2l_jax.interface.command import is_news
from m2l_jax.interface.errors import InputError
from tests.conftest import largest_file


def save(store, step, size=10, figures=None):
    values = np.random.default_rng(step).standard_normal(size).astype(np.float32)
    store.save(step, {'state': values}, {'ema': values}, {'seed': 0}, figures)


def kept(workdir):
    names = [path.name for path in (workdir / 'checkpoints').iterdir()]
    return sorted(int(name) for name in names if name.isdigit())


def test_the_newest_and_the_best_are_kept(tmp_path):
    distances = [5.0, 1.0, 3.0, float('nan'), 2.0]
    score = lambda figures: -np.nan_to_num(figures['lsd'], nan=np.inf)  # noqa: E731
    with contextlib.closing(CheckpointStore(tmp_path, 2, score)) as store:
        for step, distance in enumerate(distances, 1):
            save(store, step, figures={'lsd': distance})
        save(store, 6)  # without an evaluation
    assert kept(tmp_path) == [2, 5, 6]


def test_without_evaluation_the_newest_are_kept(tmp_path):
    with contextlib.closing(CheckpointStore(tmp_path, 2)) as store:
        for step in (1, 2, 3):
            save(store, step)
    assert kept(tmp_path) == [2, 3]


def test_a_full_disk_is_reported_and_the_last_checkpoint_stays(tmp_path, caplog):
    message = r'into .*checkpoints \(File too large\); that of step 1 is whole'
    store = CheckpointStore(tmp_path, 2)
    save(store, 1)
    with pytest.raises(InputError, match=message), largest_file(200_000), contextlib.closing(store):
        save(store, 2, size=1_000_000)
    assert not [record for record in caplog.records if is_news(record) and record.exc_info]
    # The next run sees the good one alone.
    with contextlib.closing(CheckpointStore(tmp_path, 2)) as store:
        assert store.latest_step() == 1
        expected = np.random.default_rng(1).standard_normal(10).astype(np.float32)
        zeros = np.zeros(10, np.float32)
        state, _ = store.restore(1, {'state': zeros}, {'ema': zeros})
        np.testing.assert_array_equal(state['state'], expected)
        save(store, 3)
    assert kept(tmp_path) == [1, 3]


def test_what_a_killed_process_left_is_removed_by_the_next_run_alone(tmp_path):
    unfinished = tmp_path / 'checkpoints' / '7.orbax-checkpoint-tmp' / 'state'
    unfinished.mkdir(parents=True)
    CheckpointStore(tmp_path).close()
    assert unfinished.is_dir()  # a reader must not: another process may be writing it
    with contextlib.closing(CheckpointStore(tmp_path, 2)) as store:
        assert store.latest_step() is None
    assert not unfinished.parent.exists()


def process_state():
    """State of the process that a library must not change."""
    gc.collect()
    return {
        'root logger': (logging.root.level, list(logging.root.handlers)),
        'absl': (logging.getLogger('absl').level, list(logging.getLogger('absl').filters)),
        'hooks': (sys.unraisablehook, sys.excepthook, threading.excepthook),
        'signals': [signal.getsignal(number) for number in signal.valid_signals()],
        'environment': dict(os.environ),
        'jax': dict(jax.config.values),
        'files': len(os.listdir('/dev/fd')),
        'threads': threading.enumerate(),
        'warnings': list(warnings.filters),
    }


def test_the_process_that_loads_a_model_stays_as_it_was(tmp_path):
    save_model(tmp_path, small_model.CONFIG, small_model.random_params())
    load_model(tmp_path)  # imports are done
    handlers, logging.root.handlers = logging.root.handlers, []
    try:
        before = process_state()
        load_model(tmp_path)
        assert process_state() == before
    finally:
        logging.root.handlers = handlers


def test_a_run_that_saves_leaves_hooks_and_filters_as_they_were(tmp_path, caplog):
    hook, filters = sys.unraisablehook, list(logging.getLogger('absl').filters)
    with contextlib.closing(CheckpointStore(tmp_path, 2, lambda figures: figures['a'])) as store:
        save(store, 1)
        assert sys.unraisablehook is hook
        assert logging.getLogger('absl').filters == filters
        try:
            raise ValueError
        except ValueError:
            logging.getLogger('absl').exception("the caller's own")
    (record,) = caplog.records  # Orbax does not warn of missing figures
    assert record.getMessage() == "the caller's own"
    assert is_news(record)


def test_importing_checkpoints_leaves_logging_to_the_caller():
    script = 'import logging, m2l_jax; m2l_jax.load_model; assert not logging.root.handlers'
    subprocess.run([sys.executable, '-c', script], check=True)

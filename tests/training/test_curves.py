import contextlib
import math

from m2l_jax.training import curves as curve_files
from m2l_jax.training.curves import EventFile, read_curves


def test_what_was_done_again_counts_as_the_last_time(tmp_path, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(curve_files.time, 'time', lambda: float(next(clock)))
    # The file that sorts first was written last: on another machine, say.
    for suffix, points in (
        ('.z', {1: 4.0, 2: 3.0, 3: 2.5}),
        ('.a', {2: 3.5, 3: 2.0, 4: 1.0}),
    ):
        with contextlib.closing(EventFile(tmp_path, suffix)) as events:
            for step, loss in points.items():
                events.add_scalars(step, {'loss': loss})
    with contextlib.closing(EventFile(tmp_path, '.b')) as events:
        events.add_scalars(4, {'evaluation/lsd': 20.0})
    curves = read_curves(tmp_path)
    assert curves == {'evaluation/lsd': {4: 20.0}, 'loss': {1: 4.0, 2: 3.5, 3: 2.0, 4: 1.0}}
    assert list(curves['loss']) == [1, 2, 3, 4]


def test_a_number_that_is_not_finite_is_written_without_a_line(tmp_path, caplog):
    with contextlib.closing(EventFile(tmp_path, '')) as events:
        events.add_scalars(1, {'loss': math.nan, 'gradient_norm': math.inf})
    assert not caplog.messages
    curves = read_curves(tmp_path)
    assert math.isnan(curves['loss'][1])
    assert curves['gradient_norm'] == {1: math.inf}


def test_a_run_may_have_no_curves_yet(tmp_path):
    assert read_curves(tmp_path) == {}

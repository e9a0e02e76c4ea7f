import importlib.util

from m2l_jax.evaluation.metrics import ALL_METRICS, METRICS, find_available
from m2l_jax.evaluation.perception.packages import Package, describe_missing


def test_missing_packages_are_named_with_their_commands():
    one, two = (Package(name, f'pip install {name}') for name in ('no_such_a', 'no_such_b'))
    here = Package('numpy', 'pip install numpy')
    assert describe_missing([here]) == ''
    assert describe_missing([here, one]) == 'no_such_a is not installed: pip install no_such_a'
    assert describe_missing([one, here, two]) == (
        'no_such_a, no_such_b are not installed: pip install no_such_a && pip install no_such_b'
    )


def test_metrics_are_left_out_with_the_reason(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    available, left_out = find_available(ALL_METRICS)
    assert list(available) == [
        *METRICS,
        'snr',
        'centroid',
        'loudness',
        'coherence',
        'level_difference',
    ]
    assert left_out == {
        'visqol': "ViSQOL is left out: visqol is not installed: pip install 'm2l-jax[evaluate]'",
        'notes': 'note F-measure is left out: onnxruntime, mir_eval, basic_pitch are not installed'
        ": pip install 'm2l-jax[evaluate]' && pip install --no-deps basic-pitch==0.4.0",
    }


def test_what_training_measures_needs_no_extra():
    assert not any(metric.needs for metric in METRICS.values())

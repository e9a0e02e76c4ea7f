import contextlib
import pathlib
import subprocess
import sys

import numpy as np

from m2l_jax.evaluation.curve_picture import draw_curves
from m2l_jax.training.curves import EventFile

REPOSITORY = pathlib.Path(__file__).parents[2]


def test_levels_share_a_panel_and_come_in_order():
    curves = {
        'loss': {1: 4.0, 3: 2.0},
        'learning_rate': {1: 1e-4},
        'evaluation/loss_sigma_10': {3: 1.0},
        'evaluation/loss_sigma_0.5': {3: 0.5},
        'evaluation/si_sdr': {3: -3.0},
    }
    loss, by_sigma, si_sdr = draw_curves(curves, 'run').axes
    np.testing.assert_array_equal(loss.lines[0].get_xydata(), [[1, 4], [3, 2]])
    assert [line.get_label() for line in by_sigma.lines] == ['σ = 0.5', 'σ = 10']
    assert (by_sigma.get_yscale(), si_sdr.get_yscale()) == ('log', 'linear')  # dB are negative too
    assert si_sdr.get_xlabel() == 'steps'


def test_gains_and_distances_have_panels_of_their_own():
    curves = {
        'evaluation/latent_gain_magnitude_sigma_56': {3: 1.5},
        'evaluation/latent_gain_sigma_56': {3: 1.2},
        'evaluation/latent_gain_sigma_0.071': {3: 1.1},
        'evaluation/latent_gain': {3: 1.2},
        'evaluation/latent_gain_over_mean_sigma_56': {3: 1.3},
        'evaluation/mel': {3: 0.7},
    }
    gain, magnitude, mel = draw_curves(curves, 'run').axes
    assert [line.get_label() for line in gain.lines] == ['σ = 0.071', 'σ = 56']
    assert [list(axis.lines[-1].get_ydata()) for axis in (gain, magnitude, mel)] == [
        [1.2],
        [1.5],
        [0.7],
    ]
    assert {axis.get_yscale() for axis in (gain, magnitude, mel)} == {'linear'}


def test_a_picture_that_does_not_fit_ends_the_command_in_a_line(tmp_path):
    with contextlib.closing(EventFile(tmp_path, '')) as events:
        for step in (1, 2):
            events.add_scalars(step, {'loss': 1 / step})
    output = tmp_path / 'new' / 'out'
    code = (
        'import resource; from m2l_jax import plot; from m2l_jax.evaluation import report; '
        'from m2l_jax.interface import command; '
        'resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY)); '
        'command.run(plot.main)'
    )
    result = subprocess.run(
        [sys.executable, '-c', code, f'--workdir={tmp_path}', f'--output={output}'],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert f'error: {output}/curves.png cannot be written (File too large)' in result.stderr
    assert 'Traceback' not in result.stderr
    assert [path.name for path in output.iterdir()] == ['curves.json']

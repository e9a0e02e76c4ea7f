import contextlib
import pathlib
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from m2l_jax.evaluation.metrics import METRICS
from m2l_jax.evaluation.pictures import draw_comparison, draw_curves, save_picture, to_pixels
from m2l_jax.interface.errors import InputError
from m2l_jax.training.curves import EventFile
from tests.conftest import largest_file

REPOSITORY = pathlib.Path(__file__).parents[2]


@pytest.fixture
def figure():
    noise = 0.1 * np.random.default_rng(0).standard_normal((2, 44_100))
    return draw_comparison(noise, 0 * noise, 44_100, r'\of {$ a $2 bill')


def test_picture_is_written(figure, tmp_path):
    save_picture(tmp_path / 'new' / 'a.png', figure)
    assert matplotlib.image.imread(tmp_path / 'new' / 'a.png').shape[:2] == (1100, 1320)


def test_pixels_show_the_sound_and_its_absence(figure):
    pixels = to_pixels(figure)
    assert pixels.shape == (750, 900, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels[0, 0], 255)
    black = np.mean(np.all(pixels == [0, 0, 3], axis=-1), axis=1)  # the lowest level's colour
    assert np.max(black[450:]) > 0.8  # silence below
    assert np.max(black[:375]) < 0.1  # noise above


def test_what_is_drawn_of_a_long_signal_has_its_extremes_and_no_more_points():
    noise = 0.1 * np.random.default_rng(0).standard_normal((1, 3_000_000))
    noise[0, [1_000_000, 2_999_999]] = 0.9, -0.8
    figure = draw_comparison(noise, noise[:, ::-1], 44_100, 'a')
    (line,) = figure.axes[0].lines
    times, levels = line.get_xydata().T
    assert len(times) <= 2 * 4097
    assert times[np.argmax(levels)] == pytest.approx(1_000_000 / 44_100, abs=0.02)
    assert (np.max(levels), levels[-2]) == (0.9, -0.8)
    (image,) = figure.axes[1].images
    assert 4000 < image.get_array().shape[1] <= 4100


@pytest.mark.parametrize('size', [0, 1000, 20_000])
def test_a_picture_that_does_not_fit_leaves_nothing(figure, tmp_path, size):
    with (
        largest_file(size),
        pytest.raises(InputError, match=r'a\.png cannot be written \(File too large\)'),
    ):
        save_picture(tmp_path / 'a.png', figure)
    assert not list(tmp_path.iterdir())


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


def test_lines_differ_on_white_and_those_of_tokens_are_dashed():
    curves = {f'evaluation/loss_sigma_{level}': {1: 1.0, 2: 2.0} for level in range(1, 9)}
    curves |= {f'evaluation/{name}': {1: 1.0, 2: 2.0} for name in ('mel', 'tokens_mel')}
    by_sigma, mel = draw_curves(curves, 'run').axes
    for axis in (by_sigma, mel):
        colours = np.array([to_rgb(line.get_color()) for line in axis.lines])
        lightness = colours @ [0.2126, 0.7152, 0.0722]
        assert lightness.max() < 0.75  # of white, 1
        assert len(np.unique(colours, axis=0)) == len(axis.lines)
        assert len(axis.get_legend().get_texts()) == len(axis.lines)
    assert [line.get_label() for line in mel.lines] == ['latents', 'tokens']
    assert [line.get_linestyle() for line in mel.lines] == ['-', '--']


def test_gains_and_distances_have_panels_of_their_own():
    curves = {
        'evaluation/latent_gain_magnitude_sigma_56': {3: 1.5},
        'evaluation/latent_gain_sigma_56': {3: 1.2},
        'evaluation/latent_gain_sigma_0.071': {3: 1.1},
        'evaluation/latent_gain': {3: 1.2},
        'evaluation/latent_gain_over_mean_sigma_56': {3: 1.3},
        'evaluation/mel': {3: 0.7},
    }
    axes = gain, *_ = draw_curves(curves, 'run').axes
    assert [line.get_label() for line in gain.lines] == ['σ = 0.071', 'σ = 56']
    assert [list(axis.lines[-1].get_ydata()) for axis in axes] == [[1.2], [1.3], [1.5], [0.7]]
    assert {axis.get_yscale() for axis in axes} == {'linear'}


def test_the_latents_spread_is_drawn_in_training_and_on_held_out_clips():
    curves = {
        'latent_std': {1: 0.5, 2: 0.4},
        'evaluation/latent_std': {2: 0.3},
        'evaluation/latents_saturated': {2: 0.1},
    }
    spread, saturated = draw_curves(curves, 'run').axes
    assert [line.get_label() for line in spread.lines] == ['training', 'held-out clips']
    assert [list(line.get_ydata()) for line in spread.lines] == [[0.5, 0.4], [0.3]]
    assert [line.get_label() for line in saturated.lines] == ['held-out clips']


@pytest.mark.parametrize('panels', range(1, 14))
def test_every_panel_is_drawn_in_a_grid(panels):
    names = ['loss', 'latent_std', 'latents_saturated']
    names += [f'evaluation/{name}' for name in METRICS]
    by_level = ('loss', 'error', 'latent_gain', 'latent_gain_over_mean', 'latent_gain_magnitude')
    names += [f'evaluation/{name}_sigma_1' for name in by_level]
    figure = draw_curves({name: {1: 1.0} for name in names[:panels]}, 'run')
    assert len(figure.axes) == min(panels, len(names))


def test_a_picture_that_does_not_fit_ends_the_command_in_a_line(tmp_path):
    with contextlib.closing(EventFile(tmp_path, '')) as events:
        for step in (1, 2):
            events.add_scalars(step, {'loss': 1 / step})
    output = tmp_path / 'new' / 'out'
    code = (
        'import resource; from m2l_jax import plot; from m2l_jax.evaluation import pictures; '
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

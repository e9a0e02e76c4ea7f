import matplotlib.image
import numpy as np
import pytest

from m2l_jax.evaluation.report import draw_comparison, save_picture, to_pixels
from m2l_jax.interface.errors import InputError
from tests.conftest import largest_file


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

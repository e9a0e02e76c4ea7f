import matplotlib.image
import numpy as np
import pytest

from m2l_jax.evaluation.report import draw_comparison, save_picture, to_pixels


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

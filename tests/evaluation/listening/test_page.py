import base64
import dataclasses
import html.parser
import io
import json
import math
import re

import matplotlib.image
import numpy as np
import pytest
import soundfile

from m2l_jax.evaluation.listening.figures import (
    make_distance_table,
    make_plots,
    make_table,
)
from m2l_jax.evaluation.listening.page import write_page
from m2l_jax.evaluation.listening.stimuli import Comparison
from m2l_jax.evaluation.metrics import ALL_METRICS, measure
from m2l_jax.interface.errors import InputError
from tests.conftest import largest_file, make_music

RATE = 44_100
HOSTILE = '</script><b id="x">&\'{{data}}'
FIGURES = {
    'one': {
        'a': {'si_sdr': 2.0, 'mel': 0.25, 'centroid': 40.0},
        'b': {'si_sdr': -3.0, 'mel': 0.75, 'centroid': -70.0},
    },
    'two': {
        'a': {'si_sdr': -math.inf, 'mel': 0.125},
        'b': {'si_sdr': 9.0, 'mel': 0.375, 'centroid': 5.0},
    },
    'noise': {'b': {'si_sdr': math.nan, 'mel': 1.0}},
}


class Elements(html.parser.HTMLParser):
    """Texts of the elements of a page by their id, and the cells of its tables' rows."""

    def __init__(self, text):
        super().__init__()
        self.by_id, self.rows, self._open = {}, [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self._open.append((tag, attributes.get('id')))
        if tag == 'tr':
            self.rows.append([])
        if tag in ('td', 'th'):
            self.rows[-1].append('')

    def handle_endtag(self, tag):
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, text):
        tags = [tag for tag, _ in self._open]
        if 'td' in tags or 'th' in tags:
            self.rows[-1][-1] += text
        for _, name in self._open[-1:]:
            self.by_id[name] = self.by_id.get(name, '') + text


@pytest.fixture(scope='module')
def clips():
    music = [0.5 * make_music(2, channels=2, seed=seed) for seed in range(2)]
    return [
        Comparison(name, RATE, sound, {HOSTILE: 0.5 * sound, 'two': np.roll(sound, 100)})
        for name, sound in zip((f'a {HOSTILE}', 'b'), music, strict=True)
    ]


@pytest.fixture(scope='module')
def page(clips, tmp_path_factory):
    figures = {
        model: {clip.name: measure(clip.original, clip.reconstructions[model], RATE)}
        for clip in clips[:1]
        for model in clip.reconstructions
    }
    path = write_page(tmp_path_factory.mktemp('page'), clips, figures, HOSTILE)
    assert path.name == 'index.html'
    return path.read_text()


@pytest.fixture(scope='module')
def elements(page):
    return Elements(page)


@pytest.fixture(scope='module')
def data(elements):
    return json.loads(elements.by_id['data'])


def test_sounds_are_what_went_in(clips, elements):
    for number, clip in enumerate(clips):
        for source, expected in enumerate(clip.sounds()):
            content = base64.b64decode(elements.by_id[f'sound-{number}-{source}'])
            sound, rate = soundfile.read(io.BytesIO(content))
            assert (rate, sound.T.shape) == (RATE, expected.shape)
            noise = np.sum((sound.T - expected) ** 2) / np.sum(expected**2)
            assert 10 * np.log10(noise) < -25


def test_gains_match_loudness(data):
    for clip in data['clips']:
        original, half, shifted, low, high = clip['gains']
        assert half == pytest.approx(2 * original, rel=1e-4)
        assert shifted == pytest.approx(original, rel=0.01)
        assert low > high > original  # what was cut off is made up for


def test_anchors_are_described_for_the_browser(data):
    assert [anchor['hertz'] for anchor in data['anchors']] == [3500, 7000]
    for anchor in data['anchors']:
        assert len(anchor['taps']) % 2 == 1
        assert np.sum(anchor['taps']) == pytest.approx(1)


def test_names_are_escaped(page, elements, data):
    assert data['title'] == HOSTILE
    assert data['models'] == [HOSTILE, 'two']
    assert data['clips'][0]['name'] == f'a {HOSTILE}'
    assert '<b id' not in page
    assert page.count('</script>') == 2 + 6  # data and script, sounds
    assert 'x' not in elements.by_id
    assert ['mean of 1', HOSTILE] in [row[:2] for row in elements.rows]


def test_nothing_is_fetched(page):
    own = re.sub(r'data:image/jpeg;base64,[^"]*|<script type="text/plain.*', '', page)
    assert not re.search(r'https?:|src=|url\(|@import', own)


def test_pictures_show_the_sound(data):
    for clip in data['clips']:
        for address in clip['pictures']:
            content = base64.b64decode(address.removeprefix('data:image/jpeg;base64,'))
            picture = matplotlib.image.imread(io.BytesIO(content), format='jpeg')
            assert picture.shape[0] == 256
            assert 500 < picture.shape[1] < 700
            assert np.mean(picture[-32:]) > 2 * np.mean(picture[:32])  # low notes, at the bottom


def test_table_has_means_first_and_every_clip():
    rows = Elements(make_table(FIGURES, ['one', 'two'])).rows
    headings = [ALL_METRICS[name].heading for name in ('si_sdr', 'mel', 'centroid')]
    assert rows == [
        ['clip', 'model', *headings],
        *(
            ['mean of 2', 'one', '−0.50[−3.00, 2.00]', '0.500[0.250, 0.750]', '−15[−70, 40]'],
            ['mean of 2', 'two', '9.00 of 1', '0.250[0.125, 0.375]', '5 of 1'],
            ['mean of 1', 'noise', '–', '1.000', '–'],
            ['a', 'one', '2.00', '0.250', '40'],
            ['a', 'two', '−inf', '0.125', '–'],
            ['b', 'one', '−3.00', '0.750', '−70'],
            ['b', 'two', '9.00', '0.375', '5'],
            ['b', 'noise', '–', '1.000', '–'],
        ),
    ]


def test_best_means_are_marked():
    """The highest SI-SDR, the lowest distance, and the bias that is nearest to 0."""
    table = make_table(FIGURES, ['one', 'two'])
    assert re.findall(r'class="best"[^>]*>([^<]+)', table) == ['9.00 of 1', '0.250', '5 of 1']
    better = FIGURES | {'noise': {'a': {'mel': 0.0}}}
    assert 'class="best" data-value="0.0"' not in make_table(better, ['one', 'two'])
    assert 'class="best"' not in make_table(FIGURES, ['one'])  # it is best of itself


def test_sorting_has_exact_values():
    values = re.findall(r'data-value="([^"]+)"', make_table(FIGURES, ['one', 'two']))
    assert values[:3] == ['-0.5', '0.5', '-15.0']
    assert values[12:15] == ['-Infinity', '0.125', 'NaN']


def test_distances_have_a_table_of_their_own(clips, tmp_path):
    rows = [('far & wide', '1.5 [1, 2]', ''), ('kernel', '0.1', HOSTILE)]
    assert Elements(make_distance_table(['one', HOSTILE], rows)).rows == [
        ['', 'one', HOSTILE], ['far & wide', '1.5 [1, 2]', ''], ['kernel', '0.1', HOSTILE],
    ]  # fmt: skip
    assert make_distance_table(['one'], []) == ''
    page = write_page(tmp_path, clips, FIGURES, 'title', [('far', '1', '2', '3')]).read_text()
    assert ['', 'one', 'two', 'noise'] in Elements(page).rows
    assert ['far', '1', '2', '3'] in Elements(page).rows


def test_plots_show_every_finite_value():
    si_sdr, mel, centroid = make_plots(FIGURES).split('\n')
    assert re.findall(r'<title>(.*?)</title>', si_sdr) == [
        *('median −0.50', 'a: 2.00', 'b: −3.00'),
        *('median 9.00', 'b: 9.00'),
    ]
    places = [float(place) for place in re.findall(r'<circle cx="([\d.]+)"', mel)]
    values = [0.25, 0.75, 0.125, 0.375, 1.0]
    slope, offset = np.polyfit(values, places, 1)
    np.testing.assert_allclose(np.polyval([slope, offset], values), places, atol=0.1)
    assert centroid.count('<circle') == 3


def test_equal_values_can_be_plotted():
    plot = make_plots({'one': {'a': {'mel': 0.5}, 'b': {'mel': 0.5}}})
    assert plot.count('<circle') == 2
    assert 'nan' not in plot


def test_a_page_needs_no_figures(clips, tmp_path):
    page = write_page(tmp_path, clips[1:], {}, 'title').read_text()
    assert '<table id="table">' not in page
    assert 'svg role' not in page


def test_thirty_clips_of_ten_seconds_take_less_than_60_megabytes(tmp_path):
    sound = 0.5 * make_music(10, channels=2)
    clip = Comparison('a', RATE, sound, {'one': sound, 'two': 0.9 * sound})
    size = write_page(tmp_path, [clip], {}, 'title').stat().st_size
    assert 30 * size < 60e6


def test_a_page_that_does_not_fit_on_the_disk_leaves_nothing(clips, tmp_path):
    with (
        largest_file(50_000),
        pytest.raises(InputError, match=r'index\.html cannot be written \(File too large\)'),
    ):
        write_page(tmp_path / 'new', clips, {}, 'title')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('rate', [4000, 192_000])
def test_a_rate_that_browsers_do_not_know_is_refused(clips, tmp_path, rate):
    odd = [dataclasses.replace(clips[0], sample_rate=rate)]
    with pytest.raises(InputError, match=f'clips of {rate} Hz do not play in every browser: resam'):
        write_page(tmp_path / 'new', odd, {}, 'title')
    assert not list(tmp_path.iterdir())


def test_clips_must_fit_together(tmp_path):
    with pytest.raises(InputError, match='no clips to listen to'):
        write_page(tmp_path / 'new', [], {}, 'title')
    assert not list(tmp_path.iterdir())

"""The listening page in headless Chromium, judged by what comes out of it."""

import contextlib
import csv
import dataclasses
import shutil

import numpy as np
import pytest

from m2l_jax.evaluation.listening.page import write_page
from m2l_jax.evaluation.listening.stimuli import Comparison

sync_api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='Chromium is not installed')

RATE, SECONDS = 32_000, 12
SWEEP = 100  # Hz a second: the pitch tells the position
HOSTILE = '<img src=x onerror="window.hacked = true">, "x"'
MODELS = {'one': 1500, HOSTILE: 2200}  # Hz at the beginning
FIGURES = {
    model: {clip: {'si_sdr': -level - number} for number, clip in enumerate(('b', 'a', HOSTILE))}
    for level, model in enumerate(MODELS)
}
SCORES = {'Original': 100, 'one': 70, HOSTILE: 40, 'low-pass 7 kHz': 25, 'low-pass 3.5 kHz': 10}

# All that goes to the loudspeaker goes through `tap` too.
TAP = """
  const connect = AudioNode.prototype.connect;
  AudioNode.prototype.connect = function (target, ...rest) {
    if (target instanceof AudioDestinationNode && target.context instanceof AudioContext) {
      const options = { fftSize: 32768, smoothingTimeConstant: 0 };
      window.tap ??= new AnalyserNode(target.context, options);
      connect.call(this, window.tap);
    }
    return connect.call(this, target, ...rest);
  };
  window.listen = () => {
    const samples = new Float32Array(window.tap.fftSize);
    window.tap.getFloatTimeDomainData(samples);
    const shown = parseFloat(document.getElementById('time').textContent);
    return [window.tap.context.currentTime, shown, [...samples]];
  };
"""


def tones(*frequencies):
    time = np.arange(RATE * SECONDS) / RATE
    phases = [2 * np.pi * frequency * time for frequency in frequencies]
    phases[0] = phases[0] + np.pi * SWEEP * time**2
    return sum(0.1 * np.sin(phase) for phase in phases)[None].astype(np.float32)


@pytest.fixture(scope='module')
def browser():
    with sync_api.sync_playwright() as playwright:
        # Chromium has no sandbox for root, as whom containers run.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        yield browser
        browser.close()


@pytest.fixture(scope='module')
def address(tmp_path_factory):
    """A sweep with tones that the anchors lack, and other sweeps as reconstructions."""
    sound = tones(800, 5000, 10_000)
    clips = [
        Comparison(name, RATE, sound, {model: tones(hertz) for model, hertz in MODELS.items()})
        for name in ('b', 'a', HOSTILE)
    ]
    return write_page(tmp_path_factory.mktemp('page'), clips, FIGURES, HOSTILE).as_uri()


@pytest.fixture
def page(browser, address):
    with open_page(browser, address) as page:
        yield page


@contextlib.contextmanager
def open_page(browser, address):
    context = browser.new_context()
    page = context.new_page()
    errors = []
    page.on('pageerror', lambda error: errors.append(str(error)))
    page.on('console', lambda message: errors.append(message.text))
    page.add_init_script(TAP)
    page.goto(address)
    page.wait_for_selector('#play:enabled')
    yield page
    assert not errors
    context.close()


@dataclasses.dataclass(frozen=True)
class Heard:
    """The last eighth of a second; `clock` is that of the sound, `shown` the page's position."""

    clock: float
    shown: float
    spectrum: np.ndarray

    @property
    def pitch(self):
        """The sweep's pitch in Hz."""
        return 8 * np.argmax(self.spectrum[: 4000 // 8])

    def has(self, hertz):
        return np.max(self.spectrum[hertz // 8 - 2 : hertz // 8 + 3]) > 0.1 * self.spectrum.max()


def play_on(page, seconds):
    """Waits by the clock of the sound, which a busy machine may delay."""
    clock = page.evaluate('window.tap.context.currentTime')
    page.wait_for_function(f'window.tap.context.currentTime > {clock + seconds}')


def hear(page):
    play_on(page, 0.3)  # until only what is now selected is in the analyser
    clock, shown, samples = page.evaluate('listen()')
    spectrum = np.abs(np.fft.rfft(samples[-4000:] * np.hanning(4000)))
    return Heard(clock, shown, spectrum)


def test_a_click_switches_the_source_and_keeps_the_position(page):
    page.click('#play')
    before = hear(page)
    assert before.has(10_000)
    for number, offset in enumerate(MODELS.values(), start=1):
        page.click(f'#sources .source:nth-child({number + 1}) button')
        after = hear(page)
        assert not after.has(10_000)
        expected = before.pitch - 800 + offset + SWEEP * (after.clock - before.clock)
        assert after.pitch == pytest.approx(expected, abs=12)  # a tenth of a second
        pressed = page.locator('#sources button[aria-pressed=true]').all_text_contents()
        assert pressed == [f'{number + 1}{list(MODELS)[number - 1]}']
    heard = hear(page)
    assert heard.shown == pytest.approx((heard.pitch - offset) / SWEEP, abs=0.4)


def test_all_works_by_keyboard(page):
    page.keyboard.press('3')
    page.keyboard.press('Space')
    assert 2200 <= hear(page).pitch < 2500
    page.keyboard.press('ArrowRight')
    page.keyboard.press('ArrowRight')
    before = hear(page)
    assert before.pitch > 2200 + 2 * SWEEP
    page.keyboard.press('ArrowLeft')
    after = hear(page)
    expected = before.pitch + SWEEP * (after.clock - before.clock - 1)
    assert after.pitch == pytest.approx(expected, abs=12)
    page.keyboard.press('Space')
    paused = hear(page)
    assert np.max(paused.spectrum) < 0.01
    page.keyboard.press('1')
    page.keyboard.press('Space')
    heard = hear(page)
    assert heard.has(10_000)
    assert heard.pitch > 800 + SWEEP * paused.shown
    page.keyboard.press('n')
    assert page.input_value('#clip') == '1'
    page.keyboard.press('p')
    assert page.input_value('#clip') == '0'


def test_a_click_on_a_spectrogram_plays_it_from_there(page):
    picture = page.locator('.picture').nth(1)
    box = picture.bounding_box()
    picture.click(position={'x': box['width'] / 2, 'y': 20})
    heard = hear(page)
    assert heard.shown >= SECONDS / 2
    assert heard.pitch == pytest.approx(1500 + SWEEP * heard.shown, abs=0.4 * SWEEP)
    assert page.text_content('#play') == 'Pause'


def test_switching_leaves_no_gap(browser, tmp_path):
    """A switch between equal sounds changes nothing: the sine goes on, sample by sample."""
    time = np.arange(RATE * SECONDS) / RATE
    sine = 0.3 * np.sin(2 * np.pi * 997 * time)[None].astype(np.float32)
    clip = Comparison('a', RATE, sine, {'half': 0.5 * sine, 'same': sine})
    address = write_page(tmp_path, [clip], {}, 'title').as_uri()
    with open_page(browser, address) as page:
        page.click('#play')
        play_on(page, 1)
        for key in '231':
            page.keyboard.press(key)
            play_on(page, 0.1)
        _, _, samples = page.evaluate('listen()')
        samples = np.array(samples[-24_000:])
        step = 2 * np.pi * 997 / RATE
        sines = samples[1:-1], (samples[2:] - samples[:-2]) / (2 * np.sin(step))
        np.testing.assert_allclose(np.hypot(*sines), 0.3, atol=0.006)


def rate_by_ear(page):
    """Rates each letter of a clip by what it sounds like; returns names by letter."""
    names = {}
    page.keyboard.press('Space')
    page.keyboard.press('1')
    reference = hear(page)
    assert reference.has(10_000)
    for place in range(len(SCORES)):
        page.keyboard.press(str(place + 2))
        heard = hear(page)
        start = heard.pitch - (reference.pitch - 800) - SWEEP * (heard.clock - reference.clock)
        name = min(('', 800), *MODELS.items(), key=lambda item: abs(item[1] - start))[0]
        if not name:
            name = 'low-pass 3.5 kHz'
            name = 'low-pass 7 kHz' if heard.has(5000) else name
            name = 'Original' if heard.has(10_000) else name
        names['ABCDE'[place]] = name
        page.locator('.rate input').nth(place).fill(str(SCORES[name]))
    page.keyboard.press('Space')
    assert set(names.values()) == set(SCORES)
    return names


def test_a_blind_session_is_completed(page, tmp_path):
    page.click('#blind')
    page.wait_for_selector('#play:enabled')
    assert page.is_hidden('#figures')
    assert page.is_disabled('#finish')
    text = page.inner_text('main')
    assert 'one' not in page.inner_text('#sources')
    assert HOSTILE not in page.inner_text('#sources')
    assert '0 of 3 clips rated' in text
    page.fill('#listener', 'Ann "A", 1')
    page.locator('#listener').blur()
    letters = {}
    for number in range(3):
        name = page.locator('#clip option:checked').text_content().split(': ', 1)[1]
        letters[name] = rate_by_ear(page)
        assert f'{number + 1} of 3 clips rated' in page.inner_text('#session')
        if number == 0:  # ratings and order outlast the page
            page.reload()
            page.wait_for_selector('#play:enabled')
            page.click('#blind')
            page.wait_for_selector('#play:enabled')
            assert '1 of 3 clips rated' in page.inner_text('#session')
        if number < 2:
            page.keyboard.press('n')
            page.wait_for_selector('#play:enabled')
    page.click('#finish')
    assert page.is_visible('#figures')
    name = page.locator('#clip option:checked').text_content().split(': ', 1)[1].rstrip(' ✓')
    shown = page.locator('.source button').all_text_contents()[1:]
    assert shown == [
        f'{place + 2}{letter} – {source}'
        for place, (letter, source) in enumerate(letters[name].items())
    ]
    assert 'below 90 in 0 of them.' in page.inner_text('#result')
    rows = [row.split('\t') for row in page.inner_text('#scores').strip().split('\n')[1:]]
    assert {row[0]: float(row[1]) for row in rows} == SCORES
    with page.expect_download() as download:
        page.click('#download')
    download.value.save_as(tmp_path / 'scores.csv')
    with open(tmp_path / 'scores.csv', newline='', encoding='utf-8') as file:
        table = list(csv.DictReader(file))
    assert len(table) == 3 * 5
    for row in table:
        assert row['listener'] == 'Ann "A", 1'
        assert row['source'] == letters[row['clip']][row['label']]
        assert int(row['score']) == SCORES[row['source']]
        kind = {'Original': 'reference', 'one': 'model', HOSTILE: 'model'}
        assert row['kind'] == kind.get(row['source'], 'anchor')


def test_arrow_keys_rate_what_is_selected(page):
    page.click('#blind')
    page.wait_for_selector('#play:enabled')
    page.keyboard.press('3')
    for key in ('ArrowUp', 'ArrowUp', 'Shift+ArrowUp', 'ArrowDown'):
        page.keyboard.press(key)
    assert page.locator('.rate output').all_text_contents() == [
        *('not rated', '61 good', 'not rated', 'not rated', 'not rated')
    ]


def test_table_is_sorted_by_its_headings(page):
    def order():
        return page.locator('.clips tr td:last-child').all_text_contents()

    assert order() == ['0.00', '−1.00', '−1.00', '−2.00', '−2.00', '−3.00']
    page.click('#table thead th:nth-child(3) button')
    assert order() == ['−3.00', '−2.00', '−2.00', '−1.00', '−1.00', '0.00']
    assert page.get_attribute('#table thead th:nth-child(3)', 'aria-sort') == 'ascending'
    page.click('#table thead th:nth-child(3) button')
    assert order() == ['0.00', '−1.00', '−1.00', '−2.00', '−2.00', '−3.00']
    page.click('#table thead th:nth-child(1) button')
    clips = page.locator('.clips th').all_text_contents()
    assert clips == [HOSTILE, HOSTILE, 'a', 'a', 'b', 'b']
    assert page.locator('.means td:nth-child(2)').all_text_contents() == list(MODELS)


def test_names_are_text(page):
    assert page.title() == HOSTILE
    assert page.inner_text('h1') == HOSTILE
    assert page.locator('img[src=x]').count() == 0
    assert not page.evaluate('"hacked" in window')

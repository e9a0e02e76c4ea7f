"""The documentation's site: built strictly, and opened as files in headless Chromium."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

pytest.importorskip('mkdocs', reason='the extra docs is not installed')

ROOT = pathlib.Path(__file__).parents[1]
CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp('site')
    result = subprocess.run(
        [sys.executable, '-m', 'mkdocs', 'build', '--strict', f'--site-dir={folder}'],
        cwd=ROOT,
        env={**os.environ, 'NO_MKDOCS_2_WARNING': '1'},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return folder


def test_each_page_is_there_and_fetches_nothing(site):
    for page in (ROOT / 'docs').glob('*.md'):
        html = (site / f'{page.stem}.html').read_text()
        fetched = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(\w+:[^"]*)"', html)
        assert not fetched, page.name


def test_links_out_of_docs_lead_to_pages_of_files(site):
    assert 'href="source/configs/default.py.html"' in (site / 'training.html').read_text()
    shown = (site / 'source/configs/default.py.html').read_text()
    assert '800_000' in shown
    listed = (site / 'source/launch.html').read_text()
    assert 'slurm.sbatch' in listed


def test_the_reference_has_arguments_and_errors(site):
    html = (site / 'api.html').read_text()
    for anchor in ('encoder_decoder.EncoderDecoder.encode', 'noise.NoiseLevels'):
        assert re.search(rf'id="m2l_jax\.\w+\.{re.escape(anchor)}"', html), anchor
    text = re.sub(r'<[^>]+>', '', html)
    assert 'Raises:' in text
    assert not re.search(r'<code[^>]*>\w+,</code>', html)  # attributes share no line
    assert 'Args:' not in text  # it would be a docstring that was not understood


@pytest.mark.skipif(CHROMIUM is None, reason='Chromium is not installed')
@pytest.mark.parametrize(('width', 'scheme'), [(1280, 'light'), (390, 'dark')])
def test_pages_fit_their_window_and_are_found(site, width, scheme):
    sync_api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    with sync_api.sync_playwright() as playwright:
        # Chromium has no sandbox for root, as whom containers run.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        page = browser.new_page(viewport={'width': width, 'height': 844}, color_scheme=scheme)
        told, fetched = [], []
        page.on('console', lambda message: told.append(message.text))
        page.on('pageerror', lambda error: told.append(str(error)))
        page.on('request', lambda request: fetched.append(request.url))
        for path in sorted(site.glob('*.html')):
            if path.name == '404.html':  # its links are of a server's root
                continue
            page.goto(path.as_uri())
            assert page.evaluate('document.documentElement.scrollWidth') == width, path.name
        page.goto((site / 'index.html').as_uri())
        page.wait_for_load_state()
        page.keyboard.press('/')
        page.keyboard.type('chunk_offsets')
        page.wait_for_selector('.md-search-result__item')
        assert page.locator('.md-search-result__item a').first.get_attribute('href')
        browser.close()
    assert not told
    assert all(url.startswith('file:') for url in fetched)

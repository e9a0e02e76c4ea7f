"""Commands, flags, files and links that README and docs name exist."""

import ast
import importlib.util
import json
import pathlib
import re
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest

from m2l_jax.training.config import TrainingConfig
from tools import goldens

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted([ROOT / 'README.md', *(ROOT / 'docs').glob('*.md')])
COMMAND = re.compile(r'python -m ((?:m2l_jax|benchmarks|tools|tests\.drills)\.\w+)((?: [^\n`]*)?)')


@pytest.fixture(scope='module')
def known_flags():
    return json.loads(goldens.GOLDENS.read_text())['flags']


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_commands_and_their_flags_exist(page, known_flags):
    for module, arguments in COMMAND.findall(page.read_text()):
        assert importlib.util.find_spec(module), module
        command = module.removeprefix('m2l_jax.')
        for name in re.findall(r'--([\w-]+)', arguments.partition('#')[0]):
            if command in known_flags:
                assert name.replace('-', '_') in known_flags[command], f'{module} --{name}'


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r'\]\(([^)\s]+)\)', page.read_text()):
        if target.startswith('http'):
            continue
        name, _, anchor = target.partition('#')
        path = page.parent / name if name else page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r'^#+ (.*)$', path.read_text(), re.MULTILINE)
            slugs = {re.sub(r'[^\w\- ]', '', each.lower()).replace(' ', '-') for each in headings}
            assert anchor in slugs, target


def fields_of(kind):
    """The types of a section's fields, of all its choices."""
    choices = get_args(kind)[1].values() if get_origin(kind) is Annotated else [kind]
    return {k: v for each in choices for k, v in get_type_hints(each, include_extras=True).items()}


def test_config_fields_exist():
    for page in PAGES:
        for path in re.findall(r'--config\.([\w.]+)=', page.read_text()):
            kind = TrainingConfig
            for name in path.split('.'):
                fields = fields_of(kind)
                assert name in fields, f'{page.name}: config.{path}'
                kind = fields[name]


def test_configs_and_launchers_exist():
    for page in PAGES:
        text = page.read_text()
        for path in re.findall(r'\b((?:configs|launch)/\w+\.(?:py|sh|sbatch|yaml))', text):
            assert (ROOT / path).exists(), f'{page.name}: {path}'


def read_messages():
    """All texts of the source, with … for what is filled in."""
    paths = [*(ROOT / 'm2l_jax').rglob('*.py'), *(ROOT / 'configs').glob('*.py')]
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield ''.join(
                    part.value if isinstance(part, ast.Constant) else '…' for part in node.values
                )


def test_messages_in_troubleshooting_are_in_the_source():
    page = (ROOT / 'docs' / 'troubleshooting.md').read_text()
    quoted = re.findall(r'^\| (`+)(.+?)\1 \|', page, re.MULTILINE)
    messages = list(read_messages())
    assert len(quoted) > 30
    for quote in (quote for _, cell in quoted for quote in cell.split('`, or `')):
        parts = '.*'.join(re.escape(part) for part in quote.split('…'))
        assert any(re.search(parts, message, re.DOTALL) for message in messages), quote

"""The code blocks of README and docs run, or say what they need.

Python and commands of the package run in a folder with tiny models and short music in place of
what the pages name. `<!-- needs: … -->` before a block leaves it out; a block that needs a package
alone, `<!-- needs: grain -->`, runs where that is installed.
"""

import dataclasses
import importlib.util
import pathlib
import re
import shlex
import shutil

import pytest
import soundfile

from m2l_jax.checkpoint.store import save_model
from m2l_jax.model.config import ModelConfig
from m2l_jax.torch_weights.conversion import save_torch_model
from tests.command_server import CommandServer
from tests.commands import tiny
from tests.conftest import make_music, on_one_device
from tests.torch_weights.test_conversion import random_params

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted([ROOT / 'README.md', *(ROOT / 'docs').glob('*.md')])
NEEDS = re.compile(r'<!-- needs: (.+) -->')

# Whole latent vectors of 64 numbers, so that the pages' shapes hold.
MODEL: ModelConfig = dataclasses.replace(tiny.MODEL, latent_channels=64)
OVERRIDES = [
    *(
        f'--config.model.{name}={getattr(MODEL, name)}'
        for name in (
            'base_channels',
            'channel_multipliers',
            'downsampling',
            'attention',
            'unet_blocks',
            'bottleneck_channels',
            'bottleneck_blocks',
            'latent_channels',
            'embedding_channels',
        )
    ),
    f'--config.model.spectrogram.window={MODEL.spectrogram.window}',
    f'--config.model.spectrogram.hop={MODEL.spectrogram.hop}',
    '--config.data.batch_size=2',
    '--config.data.crop_frames=8',
    '--config.data.resident=True',
    '--config.optimizer.warmup_steps=1',
    '--config.train.steps=3',
    '--config.train.log_every=1',
    '--config.train.checkpoint_every=3',
    '--config.evaluation.path=',
]
# What makes a command quick, after the flags of the page.
QUICK = {
    'train': OVERRIDES,
    'evaluate': ['--seconds=0.4', '--media=0', '--untrained=0', '--processes=0', '--nolatent_gain'],
    'compare': ['--seconds=0.2'],
    'prepare': ['--segment_seconds=1', '--workers=1'],
}
FOLDERS = re.compile(r'(?<![\w.])/(runs|data|models|tmp|more)\b')


@dataclasses.dataclass(frozen=True)
class Block:
    page: pathlib.Path
    line: int
    language: str
    needs: str | None
    text: str

    @property
    def place(self) -> str:
        return f'{self.page.name}:{self.line}'

    @property
    def runs(self) -> bool:
        if self.needs is None:
            return self.language != 'text'
        return self.language == 'python' and is_installed(self.needs)


def is_installed(name: str) -> bool:
    return name.isidentifier() and importlib.util.find_spec(name) is not None


def read_blocks(page: pathlib.Path) -> list[Block]:
    blocks, fence, before = [], None, ''
    for number, line in enumerate(page.read_text().splitlines(), 1):
        mark = re.match(r'\s*(`{3,})(.*)', line)
        if fence is None and mark:
            fence, language, start, content = mark[1], mark[2].strip(), number, []
        elif fence is not None and mark and mark[1] == fence and not mark[2]:
            needs = NEEDS.fullmatch(before)
            blocks.append(
                Block(page, start, language, needs and needs[1], '\n'.join(content) + '\n')
            )
            fence, before = None, ''
        elif fence is not None:
            content.append(line)
        elif line.strip():
            before = line.strip()
    return blocks


def split_commands(block: Block) -> list[tuple[dict[str, str], list[str]]]:
    """The environment and the words of each command."""
    commands = []
    for line in block.text.replace('\\\n', ' ').splitlines():
        words = shlex.split(line, comments=True)
        environment = {}
        while words and re.fullmatch(r'[A-Z_]+=.*', words[0]):
            name, _, value = words.pop(0).partition('=')
            environment[name] = value
        if words:
            commands.append((environment, words))
    return commands


@pytest.fixture(scope='module')
def server():
    with CommandServer(on_one_device()) as server:
        yield server


@pytest.fixture(scope='module')
def prepared(server, tmp_path_factory):
    """A folder with all that the pages suppose is there."""
    root = tmp_path_factory.mktemp('reader')
    (root / 'models').mkdir()
    for seed, name in enumerate(('small', 'released')):
        save_torch_model(root / f'models/{name}.safetensors', MODEL, random_params(MODEL, seed))
    save_torch_model(root / 'music2latent.pt', MODEL, random_params(MODEL, 2))
    for name in ('song.flac', 'a.flac', 'b.ogg', 'data/rain.flac', 'data/x/masters/deep/c.flac'):
        write_music(root / name)
    for folder in ('data/music', 'data/speech', 'more'):
        write_music(root / folder / 'one.flac', channels=1)
        write_music(root / folder / 'two.wav')
    write_music(root / 'data/held_out/one.flac', 0.5, channels=1)
    lines = ['path,genre']
    for number in range(16):
        write_music(root / f'labelled/{number}.wav', 0.3)
        lines.append(f'labelled/{number}.wav,{"ab"[number % 2]}')
    (root / 'labels.csv').write_text('\n'.join(lines) + '\n')
    arguments = ['--config=default', f'--config.data.path={root}/data/music', *OVERRIDES]
    code, log = server.run('m2l_jax.train', [*arguments, f'--workdir={root}/runs/first'], root, {})
    assert code == 0, log
    shutil.copytree(root / 'runs/first', root / 'runs/second')
    discrete = dataclasses.replace(MODEL, bottleneck='fsq')
    save_model(root / 'runs/discrete', discrete, random_params(discrete))
    for name in ('configs', 'm2l_jax'):  # in a clone
        (root / name).symlink_to(ROOT / name)
    return root


def write_music(path: pathlib.Path, seconds: float = 3, channels: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = len(str(path))
    soundfile.write(path, make_music(seconds, channels=channels, seed=seed).T, 44_100)


class Reader:
    """Follows a page, in a folder of its own."""

    def __init__(self, server: CommandServer, folder: pathlib.Path):
        self._server, self._folder = server, folder
        self._names: dict[str, object] = {'__name__': 'page'}

    def follow(self, block: Block) -> None:
        if block.language == 'python':
            text = self._own_paths(block.text).replace('num_workers=4', 'num_workers=0')
            text = text.replace("'small'", repr(f'{self._folder}/models/small.safetensors'))
            exec(compile('\n' * block.line + text, str(block.page), 'exec'), self._names)
            return
        assert block.language == 'sh', f'{block.place}: mark a block of {block.language!r}'
        for environment, words in split_commands(block):
            self._run(block, environment, words)

    def _run(self, block: Block, environment: dict[str, str], words: list[str]) -> None:
        if words[0] == 'm2l':
            module, arguments = 'm2l_jax.' + words[1], words[2:]
        elif words[:2] == ['python', '-m'] and words[2].startswith('m2l_jax.'):
            module, arguments = words[2], words[3:]
        else:
            pytest.fail(f'{block.place}: `{shlex.join(words)}` is not run here: say what it needs')
        command = module.partition('.')[2]
        arguments = [self._own_model(self._own_paths(word)) for word in arguments]
        if command == 'train':
            if not any(word.startswith('--config.init_from') for word in arguments):
                arguments.append('--config.init_from=')
            workdir = next(word for word in arguments if word.startswith('--workdir='))
            shutil.rmtree(self._folder / workdir.partition('=')[2], ignore_errors=True)
        if command == 'evaluate' and not any(word.startswith('--input') for word in arguments):
            arguments.append(f'--input={self._folder}/data/held_out')
        arguments += QUICK.get(command, [])
        code, log = self._server.run(module, arguments, self._folder, environment)
        assert code == 0, f'{block.place}: {shlex.join([module, *arguments])}\n{log}'

    def _own_paths(self, text: str) -> str:
        return FOLDERS.sub(rf'{self._folder}/\1', text)

    def _own_model(self, word: str) -> str:
        """The bundled model, the released one and one of the Hub are tiny ones."""
        flag, _, names = word.partition('=')
        if flag not in ('--checkpoint', '--against', '--config.init_from', '--from'):
            return word
        models = {each: f'models/{each}.safetensors' for each in ('small', 'released')}
        models['hf://user/model'] = models['released']
        return f'{flag}={",".join(models.get(each, each) for each in names.split(","))}'


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_blocks_run_or_say_what_they_need(page, request, tmp_path, monkeypatch):
    blocks = [block for block in read_blocks(page) if block.runs]
    if not blocks:
        return
    server, prepared = request.getfixturevalue('server'), request.getfixturevalue('prepared')
    folder = shutil.copytree(prepared, tmp_path / 'reader', symlinks=True)
    monkeypatch.chdir(folder)
    reader = Reader(server, folder)
    for block in blocks:
        reader.follow(block)


def test_a_block_that_neither_runs_nor_is_marked_fails(tmp_path):
    page = tmp_path / 'page.md'
    fence = '`' * 3
    page.write_text(
        f'{fence}sh\nmake test\n{fence}\n\n{fence}yaml\na: 1\n{fence}\n'
        f'<!-- needs: minutes -->\n{fence}sh\nmake test\n{fence}\n{fence}text\nmake test\n{fence}\n'
        f'<!-- needs: no_such_package -->\n{fence}python\n1 / 0\n{fence}\n'
        f'<!-- needs: json -->\n{fence}python\n1 / 0\n{fence}\n'
    )
    command, unknown, *others = read_blocks(page)
    reader = Reader(None, tmp_path)
    with pytest.raises(pytest.fail.Exception, match=r'page\.md:1: `make test` is not run here'):
        reader.follow(command)
    with pytest.raises(AssertionError, match=r"page\.md:5: mark a block of 'yaml'"):
        reader.follow(unknown)
    assert [block.runs for block in others] == [False, False, False, True]
    with pytest.raises(ZeroDivisionError):
        reader.follow(others[-1])


def test_commands_are_split_as_a_shell_does(tmp_path):
    block = Block(tmp_path, 1, 'sh', None, "A=1 m2l x --y='a b' \\\n  --z  # why\n\n# only this\n")
    assert split_commands(block) == [({'A': '1'}, ['m2l', 'x', '--y=a b', '--z'])]

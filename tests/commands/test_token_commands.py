"""Flags of tokens that are refused; `docs/latents.md`, whose commands tests run, has the others."""

import pytest
import soundfile

from m2l_jax.torch_weights.conversion import save_torch_model
from tests.command_server import CommandServer
from tests.commands import tiny
from tests.conftest import make_music, on_one_device
from tests.torch_weights.test_conversion import random_params


@pytest.fixture(scope='module')
def server():
    with CommandServer(on_one_device()) as server:
        yield server


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('continuous')
    save_torch_model(folder / 'model.safetensors', tiny.MODEL, random_params(tiny.MODEL))
    soundfile.write(folder / 'a.wav', make_music(0.5).T, 44_100)
    return folder


@pytest.mark.parametrize(
    ('command', 'more', 'message'),
    [
        ('encode', ['--features'], '--tokens stores integers of 8 bits: leave out --features and'),
        ('encode', ['--storage=float32'], 'leave out --features and --storage'),
        ('encode', [], "this model has no tokens, its bottleneck 'tanh' is continuous: train one"),
        ('reconstruct', [], "this model has no tokens, its bottleneck 'tanh' is continuous"),
    ],
)
def test_refused(server, folder, command, more, message):
    output = folder / 'out'
    flags = ['--checkpoint=model.safetensors', '--input=a.wav', f'--output={output}', '--tokens']
    code, log = server.run(f'm2l_jax.{command}', [*flags, *more], folder, {})
    assert code == 1
    assert message in log
    assert 'Traceback' not in log
    assert not output.exists()

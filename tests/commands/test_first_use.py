import json
import pathlib
import shutil
import subprocess
import sys

import pytest
import soundfile

from m2l_jax.torch_weights.conversion import save_torch_model
from tests.commands import tiny
from tests.conftest import make_music, on_one_device
from tests.torch_weights.test_conversion import random_params
from tests.waiting import HANG_SECONDS

REPOSITORY = pathlib.Path(__file__).parents[2]
HEAVY = {'matplotlib', 'ray', 'tensorboard', 'tensorflow', 'tensorflow_datasets', 'torch'}
# Runs a command, and tells how many programs it asked for and found, and what it had imported.
OBSERVED = """
import collections, json, runpy, sys
import jax
events = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **_: events.update([name.split('/')[-1]]))
module, sys.argv[1:] = sys.argv[1], sys.argv[2:]
try:
    runpy.run_module(module, run_name='__main__', alter_sys=True)
finally:
    told = {'asked': events['compile_requests_use_cache'], 'found': events['cache_hits']}
    print(json.dumps({**told, 'modules': sorted({name.split('.')[0] for name in sys.modules})}))
"""


@pytest.fixture
def checkpoint(tmp_path):
    save_torch_model(tmp_path / 'model.safetensors', tiny.MODEL, random_params(tiny.MODEL))
    return tmp_path / 'model.safetensors'


@pytest.fixture
def clip(tmp_path):
    soundfile.write(tmp_path / 'clip.wav', make_music(0.5, 16_000).T, 16_000)
    return tmp_path / 'clip.wav'


def observe(cache, module, *more, **flags):
    environment = {**on_one_device(), 'M2L_JAX_CACHE': str(cache)}
    environment.pop('JAX_COMPILATION_CACHE_DIR', None)
    result = subprocess.run(
        [
            *(sys.executable, '-c', OBSERVED, f'm2l_jax.{module}'),
            *(f'--{name}={value}' for name, value in flags.items()),
            *more,
        ],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_encode_and_decode_compile_once_for_all_processes(tmp_path, checkpoint, clip):
    model = {'checkpoint': checkpoint}
    latents, audio = tmp_path / 'latents', tmp_path / 'audio'
    for module, flags in (
        ('encode', {'input': clip, 'output': latents}),
        ('decode', {'input': latents / 'clip.npz', 'output': audio}),
    ):
        # A cache each: both ask XLA for its options by compiling the same constant.
        cache = tmp_path / f'{module}_cache'
        first = observe(cache, module, **model, **flags)
        again = observe(cache, module, **model, **flags)
        assert first['asked'] > first['found'] == 0
        assert again['asked'] == again['found'] == first['asked']
        assert not HEAVY & set(again['modules'])
        assert 'orbax' not in again['modules']  # for folders alone


def test_reconstruct_compiles_once_for_all_processes(tmp_path, checkpoint, clip):
    flags = {'checkpoint': checkpoint, 'input': clip, 'output': tmp_path / 'out'}
    first = observe(tmp_path / 'cache', 'reconstruct', **flags)
    again = observe(tmp_path / 'cache', 'reconstruct', **flags)
    assert first['asked'] > first['found'] == 0
    assert again['asked'] == again['found'] == first['asked']


def test_a_training_that_continues_compiles_only_its_restoring(tmp_path, music_folder):
    flags = {
        **{'config': 'configs/demo.py', 'workdir': tmp_path / 'run'},
        **{'config.data.path': music_folder, 'config.data.resident': True},
    }
    first = observe(tmp_path / 'cache', 'train', *tiny.FLAGS, **flags)
    shutil.rmtree(tmp_path / 'run' / 'checkpoints' / '3')  # as if it had been stopped before
    again = observe(tmp_path / 'cache', 'train', *tiny.FLAGS, **flags)
    assert (tmp_path / 'run' / 'checkpoints' / '3').is_dir()
    assert first['asked'] > first['found'] == 0
    assert again['asked'] == again['found'] + 1  # from the checkpoint's trees to vectors

"""Does a training that is killed again and again end with the same parameters?

    python -m tests.drills.kill_and_resume --kills=20 --signal=KILL

Trains a very small model twice, from the repository's folder: once to the end, once killed at
random moments and started anew. After each kill the newest checkpoint must be whole, and no older
than the one before; in the end, the two final states must be equal bit for bit. Prints JSON.
"""

import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

from absl import app, flags
from absl import logging as absl_logging

_KILLS = flags.DEFINE_integer('kills', 20, 'How often to kill.')
_SIGNAL = flags.DEFINE_enum('signal', 'KILL', ['KILL', 'TERM'], 'What to kill with.')
_STEPS = flags.DEFINE_integer('steps', 300, 'Steps of the training.')
_RESIDENT = flags.DEFINE_boolean('resident', False, 'Keep the corpus in device memory.')
_FOLDER = flags.DEFINE_string('folder', 'build/kill_and_resume', 'Where to train.')
_SEED = flags.DEFINE_integer('seed', 0, 'Of the moments.')

_TINY = [
    '--config=configs/demo.py',
    '--config.init_from=',
    '--config.model.base_channels=4',
    '--config.model.channel_multipliers=(1,2,2,2,2)',
    '--config.model.attention_heads=2',
    '--config.model.unet_blocks=1',
    '--config.model.bottleneck_channels=16',
    '--config.model.bottleneck_blocks=1',
    '--config.model.latent_channels=8',
    '--config.model.embedding_channels=16',
    '--config.data.crop_frames=8',
    '--config.optimizer.warmup_steps=2',
    '--config.train.checkpoint_every=3',
]


def main(_):
    """Trains undisturbed, then with kills, and prints the result."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    folder = pathlib.Path(_FOLDER.value)
    shutil.rmtree(folder, ignore_errors=True)
    begin = time.monotonic()
    peaceful = _start(folder / 'peaceful')
    if peaceful.wait():
        sys.exit(f'training failed: see {folder}/peaceful.log')
    whole_seconds = time.monotonic() - begin
    seconds = _seconds_to_first_steps(folder, whole_seconds)
    moments, newest, codes = random.Random(_SEED.value), [], []
    while len(codes) < _KILLS.value and _newest(folder / 'killed') < _STEPS.value:
        process = _start(folder / 'killed')
        # Anywhere: in the start-up and compilation, between steps, in the middle of a save.
        time.sleep(moments.uniform(0.3, 1.2) * seconds)
        process.send_signal(getattr(signal, f'SIG{_SIGNAL.value}'))
        codes.append(process.wait())
        newest.append(_newest_whole(folder / 'killed'))
    last_code = _start(folder / 'killed').wait()
    result = {
        'signal': _SIGNAL.value,
        'resident': _RESIDENT.value,
        'kills': len(codes),
        'exit_codes': codes,
        'newest_checkpoint_after_each': newest,
        'none_lost': all(a <= b for a, b in itertools.pairwise(newest)),
        'finished': last_code == 0,
        'equal_bit_for_bit': _state(folder / 'peaceful', _STEPS.value)
        == _state(folder / 'killed', _STEPS.value),
        'seconds': time.monotonic() - begin,
    }
    print(json.dumps(result, indent=2))
    if len(codes) < _KILLS.value:
        sys.exit('it was done before all kills: pass more --steps')
    if not (result['none_lost'] and result['finished'] and result['equal_bit_for_bit']):
        sys.exit(1)


def _start(workdir: pathlib.Path) -> subprocess.Popen:
    workdir.parent.mkdir(parents=True, exist_ok=True)
    cache = workdir.parent.absolute() / 'cache'
    with open(f'{workdir}.log', 'a') as log:
        return subprocess.Popen(
            [
                *(sys.executable, '-m', 'm2l_jax.train', f'--workdir={workdir}', *_TINY),
                f'--config.train.steps={_STEPS.value}',
                f'--config.data.resident={_RESIDENT.value}',
            ],
            env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'JAX_COMPILATION_CACHE_DIR': str(cache)},
            stdout=log,
            stderr=log,
        )


def _seconds_to_first_steps(folder: pathlib.Path, most: float) -> float:
    """How long a start takes once everything is compiled, and a few steps; killed after that."""
    begin = time.monotonic()
    process = _start(folder / 'killed')
    while _newest(folder / 'killed') < 6 and time.monotonic() - begin < most:
        time.sleep(0.1)
    process.kill()
    process.wait()
    return time.monotonic() - begin


def _newest(workdir: pathlib.Path) -> int:
    """Step of the newest checkpoint under its final name; 0 if there is none."""
    steps = [int(path.name) for path in workdir.glob('checkpoints/*') if path.name.isdigit()]
    return max(steps, default=0)


def _newest_whole(workdir: pathlib.Path) -> int:
    """The same, read to see that it is whole."""
    step = _newest(workdir)
    if step:
        _state(workdir, step)
    return step


def _state(workdir: pathlib.Path, step: int) -> list[bytes]:
    """All that a checkpoint holds, in bytes."""
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    folder = workdir.absolute() / 'checkpoints' / str(step)
    with ocp.StandardCheckpointer() as reader:
        trees = [reader.restore(folder / item) for item in ('state', 'ema')]
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(trees)]


if __name__ == '__main__':
    app.run(main)

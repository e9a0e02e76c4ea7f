"""How long does the first use take: encoding a short file in a process that has just started?

    python -m benchmarks.first_use --rounds=3 --output=first_use.json
    python -m benchmarks.first_use --checkpoints=/runs/first,model.pt --audio=song.flac

For each checkpoint, in turns: a process with an empty compile cache, and one with a filled
cache; from Python, where the parts are timed, and by the command. Prints medians in seconds:
`start-up` of the interpreter and imports, `loading` the weights, `compiling` (tracing, then
compiling or reading the cache), `computing` (encoding once more), and `command`, all of
`m2l_jax.encode`.
Without --checkpoints the weights are random, at full size.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import soundfile
from absl import app, flags

from benchmarks import report
from m2l_jax.audio import files

_CHECKPOINTS = flags.DEFINE_list('checkpoints', [], 'Folders or files; random weights by default.')
_AUDIO = flags.DEFINE_string('audio', 'm2l_jax/assets/heldout/greensleeves.ogg', 'Recording.')
_SECONDS = flags.DEFINE_float('seconds', 10.0, 'Of the recording, mono; repeated if need be.')
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Processes of each sort.', lower_bound=1)
_OUTPUT = report.define_output()

_SAMPLE_RATE = 44_100
_PARTS = ('start-up', 'loading', 'compiling', 'computing', 'command')

# Prints the times at which start-up, loading, and encoding once and twice have ended.
_PROCESS = """
import json, sys, time, jax
from m2l_jax import EncoderDecoder, use_compile_cache

use_compile_cache()
ends = [time.time()]
codec = EncoderDecoder(sys.argv[1])
jax.block_until_ready(codec.params)
ends.append(time.time())
for _ in range(2):
    codec.encode(sys.argv[2])
    ends.append(time.time())
print(json.dumps(ends))
"""

Seconds = dict[str, float]


def main(_):
    """Runs the processes and prints what they took."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        clip = _cut_clip(folder)
        checkpoints = _CHECKPOINTS.value or [_make_checkpoint(folder)]
        result = {'audio_seconds': _SECONDS.value, 'seconds': {}}
        for checkpoint in checkpoints:
            rounds = [_measure(checkpoint, clip, folder) for _ in range(_ROUNDS.value)]
            result['seconds'][pathlib.Path(checkpoint).name] = {
                cache: {
                    part: statistics.median(seconds[cache][part] for seconds in rounds)
                    for part in _PARTS
                }
                for cache in ('cold', 'warm')
            }
    report.publish(result, _rows(result['seconds']), _OUTPUT.value)


def _cut_clip(folder: pathlib.Path) -> pathlib.Path:
    audio = files.read(_AUDIO.value, _SAMPLE_RATE)[0]
    clip = np.resize(audio, round(_SECONDS.value * _SAMPLE_RATE))
    soundfile.write(folder / 'clip.wav', clip, _SAMPLE_RATE)
    return folder / 'clip.wav'


def _make_checkpoint(folder: pathlib.Path) -> str:
    """Random weights at full size, as `m2l_jax.convert` keeps them."""
    # In its own process, so that this one holds no memory that the others need.
    code = (
        'import sys, jax; from m2l_jax import ModelConfig, Music2Latent; '
        'from m2l_jax.checkpoint.store import save_model; '
        'model = Music2Latent(ModelConfig()); '
        'params = jax.jit(model.init_params)(jax.random.key(0)); '
        'save_model(sys.argv[1], model.config, params)'
    )
    path = str(folder / 'model')
    subprocess.run([sys.executable, '-c', code, path], check=True)
    return path


def _measure(checkpoint: str, clip: pathlib.Path, folder: pathlib.Path) -> dict[str, Seconds]:
    """The seconds of each part, with an empty and with a filled cache."""
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        return {
            state: _time_parts(checkpoint, clip, cache) | _time_command(checkpoint, clip, cache)
            for state in ('cold', 'warm')
        }


def _time_parts(checkpoint: str, clip: pathlib.Path, cache: str) -> Seconds:
    begin = time.time()
    ends = json.loads(_run(cache, '-c', _PROCESS, checkpoint, str(clip)))
    start, loading, first, second = np.diff([begin, *ends])
    return {
        'start-up': start,
        'loading': loading,
        'compiling': first - second,
        'computing': second,
    }


def _time_command(checkpoint: str, clip: pathlib.Path, cache: str) -> Seconds:
    flags_ = (f'--checkpoint={checkpoint}', f'--input={clip}', f'--output={cache}/latents')
    begin = time.time()
    _run(cache, '-m', 'm2l_jax.encode', *flags_)
    return {'command': time.time() - begin}


def _run(cache: str, *arguments: str) -> str:
    """The output of a Python process with its compile cache in a folder."""
    environment = {**os.environ, 'M2L_JAX_CACHE': cache}
    environment.pop('JAX_COMPILATION_CACHE_DIR', None)
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def _rows(seconds: dict[str, dict[str, Seconds]]) -> list[tuple[str, ...]]:
    """The table: a line for each kind of checkpoint, cold and warm."""
    return [('checkpoint', 'cache', *_PARTS)] + [
        (checkpoint, state, *(f'{parts[part]:.2f}' for part in _PARTS))
        for checkpoint, states in seconds.items()
        for state, parts in states.items()
    ]


if __name__ == '__main__':
    app.run(main)

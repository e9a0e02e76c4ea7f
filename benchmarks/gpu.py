"""Numbers, then speed, of everything on one GPU, in one command.

    python -m benchmarks.gpu --minutes=4
    python -m benchmarks.gpu --parts=codec --codec='--pieces=1,16 --styles="compiled tuned"'

Compares the numbers with the PyTorch package's, stage by stage, and bfloat16 with float32; then
runs `benchmarks.training` and `benchmarks.codec` in both precisions. Most of the time goes into
compiling: it is done side by side before the first turn (`--side_by_side`). What is not ready after
two thirds of a part's `--minutes` is left out and named, the rest is timed. Each finished part is
written at once. A part that fails or exceeds its minutes is reported at the end; the others run. If
all is killed, the codec's cases so far are in a file beside it that ends in `.part.json`. Of the
package's styles three are tried: name others by `--styles` within `--codec` and `--training`.
Needs jax, flax, optax, ml_collections, soundfile, soxr, orbax-checkpoint, torch and music2latent,
but not TensorFlow.
"""

import contextlib
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
from typing import Any

from absl import flags

from benchmarks import options, report
from benchmarks.remote import Remote, use_device
from m2l_jax.interface import command
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.tables import format_table

_DEVICE = flags.DEFINE_enum('device', 'cuda', ['cpu', 'cuda'], "'cpu' tries the command out.")
_MODEL = options.define_size()
_PARTS = flags.DEFINE_list('parts', ['numbers', 'training', 'codec'], 'Which, and in what order.')
_SECONDS = flags.DEFINE_float('seconds', 3.0, 'Of the audio that the numbers are compared on.')
_MINUTES = options.define_minutes('each part')
_SIDE_BY_SIDE = options.define_side_by_side()
_CODEC = flags.DEFINE_string('codec', '', 'Flags for benchmarks.codec.')
_TRAINING = flags.DEFINE_string('training', '', 'Flags for benchmarks.training.')
_OUTPUT = report.define_output('build/gpu.json')

_FLAGS = {
    'codec': ['--seconds=10', '--channels=1', '--pieces=16', '--batches=16', '--rounds=3'],
    'training': ['--batch=16', '--steps=10', '--rounds=3'],
}


def main() -> None:
    """Runs the parts, one after another."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # parts end with it
    parts = options.words(_PARTS, ('numbers', *_FLAGS))
    use_device(_DEVICE.value)
    passed_on = {'codec': _CODEC.value, 'training': _TRAINING.value}
    figures = {}
    for part in parts:
        if part == 'numbers':
            figures[part] = _numbers()
        else:
            figures[part] = _benchmark(part, shlex.split(passed_on[part]))
        report.write(figures, _OUTPUT.value)
    failed = [f'{part}: {figures[part]["failed"]}' for part in figures if 'failed' in figures[part]]
    if failed:
        raise InputError('; '.join(failed))


def _numbers() -> dict[str, Any]:
    arguments = {'config': options.model_config(_MODEL.value), 'seconds': _SECONDS.value}
    try:
        with Remote('benchmarks.numbers:Numbers', arguments, _budget()) as remote:
            numbers = remote.call('compare')
    except InputError as error:
        return {'failed': str(error)}
    _print_numbers(numbers)
    stages = numbers['float32_against_the_package']
    far = [name for name, stage in stages.items() if not stage['passed']]
    if far:
        numbers['failed'] = f'too far from the package in float32: {", ".join(far)}'
    return numbers


def _print_numbers(numbers: dict[str, Any]) -> None:
    rows = [('float32 against the package', 'SNR dB', 'at least')]
    for name, stage in numbers['float32_against_the_package'].items():
        rows.append((name, stage['snr'], stage['at_least']))
    print(format_table(rows))
    halved = numbers['bfloat16_against_float32']
    names = list(next(iter(halved.values())))
    rows = [('bfloat16 against float32, dB', *names)]
    rows += [(weights, *(ratios[name] for name in names)) for weights, ratios in halved.items()]
    print(format_table(rows), flush=True)


def _benchmark(part: str, more: list[str]) -> dict[str, Any]:
    """Runs a benchmark, and returns its figures, or `failed` with the reason."""
    output = pathlib.Path(_OUTPUT.value).with_suffix('.part.json')
    output.unlink(missing_ok=True)
    same = (_DEVICE, _MODEL, _MINUTES, _SIDE_BY_SIDE)
    own = [f'--{flag.name}={flag.value}' for flag in same if flag.value is not None]
    flags = [*_FLAGS[part], *more, *own, f'--output={output}']
    arguments = [sys.executable, '-m', f'benchmarks.{part}', *flags]
    failed = _run(arguments)
    figures = json.loads(output.read_text()) if output.exists() else {}
    output.unlink(missing_ok=True)
    return failed | figures  # the benchmark's own reason is better


def _run(arguments: list[str]) -> dict[str, str]:
    """Runs a command, ends all that it started, and returns `failed` if it failed."""
    process = subprocess.Popen(arguments, start_new_session=True)
    try:
        code = process.wait(_budget())
    except subprocess.TimeoutExpired:
        return {'failed': f'took more than {_MINUTES.value:g} minutes'}
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a child would keep the GPU
        process.wait()
    return {'failed': f'exit code {code}'} if code else {}


def _budget() -> float | None:
    """The longest time of a part in seconds."""
    return None if _MINUTES.value is None else 60 * _MINUTES.value


if __name__ == '__main__':
    command.run(main)

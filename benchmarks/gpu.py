"""All that is to be known of one GPU, in one command: numbers, then speed.

    python -m benchmarks.gpu --output=build/gpu.json
    python -m benchmarks.gpu --parts=codec --codec='--seconds=10 --pieces=16 --styles=eager'

Compares the numbers with the PyTorch package's, stage by stage, and bfloat16 with float32; then
runs `benchmarks.codec` and `benchmarks.training`, in float32 and bfloat16 both. What has come to an
end is in the file at once. Needs what the package and this project's codec and training import, of
which TensorFlow is none. Compiling everything that the package can be takes the most of the time:
`--codec` and `--training` pass flags on, such as fewer `--styles`.
"""

import json
import pathlib
import shlex
import subprocess
import sys
import tempfile
from typing import Any

from absl import flags

from benchmarks import report
from benchmarks.remote import Remote, use_device
from benchmarks.sizes import define_size, model_config
from m2l_jax.interface import command
from m2l_jax.interface.errors import InputError

_DEVICE = flags.DEFINE_enum('device', 'cuda', ['cpu', 'cuda'], "'cpu' tries the command out.")
_MODEL = define_size()
_PARTS = flags.DEFINE_list('parts', ['numbers', 'training', 'codec'], 'Which, and in what order.')
_SECONDS = flags.DEFINE_float('seconds', 3.0, 'Of the audio that the numbers are compared on.')
_CODEC = flags.DEFINE_string('codec', '', 'Flags for benchmarks.codec.')
_TRAINING = flags.DEFINE_string('training', '', 'Flags for benchmarks.training.')
_OUTPUT = report.define_output()

_DTYPES = '--dtypes=float32,bfloat16'
_FLAGS = {
    'codec': [_DTYPES, '--channels=1', '--pieces=1,16', '--batches=1,4,16'],
    'training': [_DTYPES, '--batch=16', '--steps=10'],
}


def main() -> None:
    """Runs the parts, one after another."""
    use_device(_DEVICE.value)
    unknown = set(_PARTS.value) - {'numbers', *_FLAGS}
    if unknown:
        raise InputError(f'--parts has {", ".join(unknown)}: there are numbers, codec, training')
    passed_on = {'codec': _CODEC.value, 'training': _TRAINING.value}
    figures = {}
    for part in _PARTS.value:
        if part == 'numbers':
            figures[part] = _numbers()
        else:
            figures[part] = _benchmark(part, shlex.split(passed_on[part]))
        report.write(figures, _OUTPUT.value)
    failed = [
        name
        for name, stage in figures.get('numbers', {}).get('float32_against_the_package', {}).items()
        if not stage['passed']
    ]
    if failed:
        raise InputError(f'too far from the package in float32: {", ".join(failed)}')


def _numbers() -> dict[str, Any]:
    arguments = {'config': model_config(_MODEL.value), 'seconds': _SECONDS.value}
    with Remote('benchmarks.numbers:Numbers', arguments) as remote:
        numbers = remote.call('compare')
    rows = [('float32 against the package', 'SNR dB', 'at least')]
    for name, stage in numbers['float32_against_the_package'].items():
        rows.append((name, stage['snr'], stage['at_least']))
    print(report.table(rows))
    halved = numbers['bfloat16_against_float32']
    names = list(next(iter(halved.values())))
    rows = [('bfloat16 against float32, dB', *names)]
    rows += [(weights, *(ratios[name] for name in names)) for weights, ratios in halved.items()]
    print(report.table(rows), flush=True)
    return numbers


def _benchmark(part: str, more: list[str]) -> dict[str, Any]:
    """Runs a benchmark, and returns what it writes."""
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / 'figures.json'
        own = [f'--device={_DEVICE.value}', f'--model={_MODEL.value}', f'--output={output}']
        arguments = [*_FLAGS[part], *more, *own]
        ended = subprocess.run([sys.executable, '-m', f'benchmarks.{part}', *arguments])
        if ended.returncode:
            return {'failed': f'exit code {ended.returncode}', 'flags': arguments}
        return json.loads(output.read_text())


if __name__ == '__main__':
    command.run(main)

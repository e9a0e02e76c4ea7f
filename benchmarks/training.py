"""How fast is a training step, beside the recipe around the PyTorch package in the same run?

    python -m benchmarks.training --output=training.json
    python -m benchmarks.training --device=cuda --batch=16 --dtypes=bfloat16 --steps=10

Tries the package's ways and compiles ours; then ours, the package as it comes (eager; float32 on a
CPU, autocast on a GPU) and the package's fastest way take turns, warm. Weights are random in all
layers. --steps=N times N steps in a row, as in training; after a pause the first is slower. Model
FLOP utilisation is the operations of the model's definition (0.98 TFLOP a crop at full size) over
the fastest product of matrices of either framework, in float32 on a CPU and bfloat16 on a GPU.
Ratios are times as fast, each of one round. Peaks of memory are those of the steps: on a CPU of the
process, on a GPU of its arrays, ours since the start. On a GPU our float32 is JAX's default,
TensorFloat-32 in all layers; the package's is so in convolutions, when tuned in products too.
"""

import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

from absl import flags

from benchmarks import contest, operations, options, report, timing
from benchmarks.contest import Contest, Way
from benchmarks.remote import Remote, use_device
from m2l_jax.interface import command
from m2l_jax.interface.errors import InputError
from m2l_jax.model.config import ModelConfig

_DEVICE = options.define_device()
_MODEL = options.define_size()
_BATCH = flags.DEFINE_integer('batch', 1, 'Crops a step.', lower_bound=1)
_FRAMES = flags.DEFINE_integer('frames', 64, 'Of a crop.', lower_bound=8)
_STEPS = flags.DEFINE_integer('steps', 1, 'In a run.', lower_bound=1)
_DTYPES = options.define_dtypes()
_STYLES = options.define_styles()
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Turns of each.', lower_bound=1)
_BUDGET = options.define_budget()
_OUTPUT = report.define_output()

_PRODUCTS = {
    'ours': 'benchmarks.ours:OurMatrixProducts',
    'package': 'benchmarks.package:PackageMatrixProducts',
}


def main() -> None:
    """Measures, and prints the figures."""
    dtypes = options.dtypes(_DTYPES)
    styles = options.chosen_styles(_STYLES.value, _DEVICE.value)
    use_device(_DEVICE.value)
    config = options.model_config(_MODEL.value)
    peak_dtype = 'float32' if _DEVICE.value == 'cpu' else 'bfloat16'
    flop = operations.training_step(config, _FRAMES.value)
    figures = {
        'device': _DEVICE.value,
        'model': _MODEL.value,
        'batch': _BATCH.value,
        'frames': _FRAMES.value,
        'steps_in_a_run': _STEPS.value,
        'rounds': _ROUNDS.value,
        'tflop_a_crop': flop / 1e12,
        'matrix_dtype': peak_dtype,
    }
    report.write(figures, _OUTPUT.value)
    peaks = {}
    for name, make in _PRODUCTS.items():
        with Remote(make, {'device': _DEVICE.value, 'dtype': peak_dtype}) as remote:
            peaks[name] = remote.call('peak')
    figures['matrix_peak_tflop_a_second'] = {name: peak / 1e12 for name, peak in peaks.items()}
    with tempfile.TemporaryDirectory() as folder:
        tensors = str(pathlib.Path(folder) / 'tensors.npz')
        arguments = {'config': config, 'path': tensors}
        Remote('benchmarks.package:RandomWeights', arguments).close()
        try:
            figures |= _contest(config, tensors, dtypes, styles).hold(_ROUNDS.value, _BUDGET.value)
        except InputError as error:
            report.write({**figures, 'failed': str(error)}, _OUTPUT.value)
            raise
    figures['steps'] = _step_figures(figures['seconds'], flop, max(peaks.values()))
    report.publish(figures, _rows(figures), _OUTPUT.value)


def _contest(
    config: ModelConfig, tensors: str, dtypes: Sequence[str], styles: Sequence[options.Style]
) -> Contest:
    shared = {'config': config, 'tensors': tensors, 'batch': _BATCH.value, 'frames': _FRAMES.value}

    def way(name: str, make: str, **more: Any) -> Way:
        return Way(name, f'benchmarks.{make}', tuple((shared | more).items()), (_STEPS.value,))

    def theirs(style: options.Style) -> Way:
        name, device = f'package {style.name}', _DEVICE.value
        return way(name, 'package:PackageTraining', device=device, style=style)

    return Contest(
        ours={
            f'ours {dtype}': [way(f'ours {dtype}', 'ours:OurTraining', dtype=dtype)]
            for dtype in dtypes
        },
        package=[theirs(style) for style in styles],
        default=theirs(options.default_style(_DEVICE.value)),
    )


def _step_figures(seconds: dict[str, float], flop: int, peak: float) -> dict[str, dict[str, float]]:
    """Seconds a step, crops a second, and model FLOP utilisation, by entrant."""
    figures = {}
    for name, turn in seconds.items():
        step = turn / _STEPS.value
        crops = _BATCH.value / step
        figures[name] = {
            'seconds_a_step': timing.rounded(step),
            'crops_a_second': timing.rounded(crops),
            'model_flop_utilisation': timing.rounded(crops * flop / peak),
        }
    return figures


def _rows(figures: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The table: a line for each entrant."""
    header = ('', 'way', 's a step', 'crops/s', 'utilisation', 'GB', 'compile s')
    rows = [(*header, 'over default', 'over best')]
    for name, step in figures['steps'].items():
        facts = figures['facts'][name]
        compiling = ''  # the package compiles in its first turn
        if 'compiling_seconds' in facts:
            compiling = timing.rounded(facts['lowering_seconds'] + facts['compiling_seconds'])
        memory = timing.rounded(facts['peak_memory_gb'])
        ratios = contest.ratios(figures, name)
        rows.append((name, figures['ways'][name], *step.values(), memory, compiling, *ratios))
    return rows


if __name__ == '__main__':
    command.run(main)

"""How fast is a training step, beside the recipe around the PyTorch package in the same run?

    python -m benchmarks.training --output=training.json
    python -m benchmarks.training --device=cuda --batch=16 --dtypes=bfloat16 --steps=10

The package's ways are tried, ours is compiled from nothing, and then ours, the package
as it comes (layer by layer; on a CPU in float32, on a GPU with autocast), and the package in its
fastest way take turns, warm. Weights are random in all layers. Several steps a run (`--steps`) are
nearer to training: where a pause makes memory dearer, the first after the other's turn is slower.
Model FLOP utilisation takes the operations of the model's definition, 0.98 TFLOP a crop at full
size, against the fastest product of matrices, in float32 on a CPU and bfloat16 on a GPU, that
either framework runs here. Ratios are times as fast, each of one round. A peak of memory is that of
the steps: of the whole process on a CPU; on a GPU of its arrays, ours since the start. Our float32
is what JAX takes by itself, on a GPU TensorFloat-32 in all layers; the package's in its
convolutions, and in its products too where it is tuned.
"""

import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

from absl import flags

from benchmarks import contest, operations, package, report, rounds
from benchmarks.choices import precisions
from benchmarks.contest import Contest, Way
from benchmarks.remote import Remote, use_device
from benchmarks.sizes import define_size, model_config
from m2l_jax.interface import command
from m2l_jax.interface.errors import InputError
from m2l_jax.model.config import ModelConfig

_DEVICE = flags.DEFINE_enum('device', 'cpu', ['cpu', 'cuda'], 'Of both sides.')
_MODEL = define_size()
_BATCH = flags.DEFINE_integer('batch', 1, 'Crops a step.', lower_bound=1)
_FRAMES = flags.DEFINE_integer('frames', 64, 'Of a crop.', lower_bound=8)
_STEPS = flags.DEFINE_integer('steps', 1, 'In a run.', lower_bound=1)
_DTYPES = flags.DEFINE_list('dtypes', ['float32'], 'Of this project: float32, bfloat16.')
_STYLES = package.define_styles()
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Turns of each.', lower_bound=1)
_BUDGET = flags.DEFINE_float('budget', 600, 'Seconds that a run may take on trial, compiling too.')
_OUTPUT = report.define_output()


def main() -> None:
    """Measures, and prints the figures."""
    dtypes = precisions(_DTYPES)
    styles = package.chosen_styles(_STYLES.value, _DEVICE.value)
    use_device(_DEVICE.value)
    config = model_config(_MODEL.value)
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
    report.write(figures, _OUTPUT.value)  # for who does not wait for the rest
    peaks = _matrix_peaks(peak_dtype)
    figures['matrix_peak_tflop_a_second'] = {name: peak / 1e12 for name, peak in peaks.items()}
    with tempfile.TemporaryDirectory() as folder:
        tensors = str(pathlib.Path(folder) / 'tensors.npz')
        arguments = {'config': config, 'path': tensors}
        Remote('benchmarks.package_codec:RandomWeights', arguments).close()
        try:
            figures |= _contest(config, tensors, dtypes, styles).hold(_ROUNDS.value, _BUDGET.value)
        except InputError as error:
            report.write({**figures, 'failed': str(error)}, _OUTPUT.value)
            raise
    figures['steps'] = _step_figures(figures['seconds'], flop, max(peaks.values()))
    report.publish(figures, _rows(figures), _OUTPUT.value)


def _matrix_peaks(dtype: str) -> dict[str, float]:
    """Operations a second of either framework's products of matrices."""
    peaks = {}
    for name, make in {
        'ours': 'benchmarks.our_training:OurMatrixProducts',
        'package': 'benchmarks.package_training:PackageMatrixProducts',
    }.items():
        with Remote(make, {'device': _DEVICE.value, 'dtype': dtype}) as remote:
            peaks[name] = remote.call('peak')
    return peaks


def _contest(
    config: ModelConfig, tensors: str, dtypes: Sequence[str], styles: Sequence[package.Style]
) -> Contest:
    shared = {
        'config': config,
        'tensors': tensors,
        'batch': _BATCH.value,
        'frames': _FRAMES.value,
    }

    def ours(dtype: str) -> Way:
        options = (*shared.items(), ('dtype', dtype))
        make = 'benchmarks.our_training:OurTraining'
        return Way(f'ours {dtype}', make, options, (_STEPS.value,))

    def theirs(style: package.Style) -> Way:
        options = (*shared.items(), ('device', _DEVICE.value), ('style', style))
        make = 'benchmarks.package_training:PackageTraining'
        return Way(f'package {style.name}', make, options, (_STEPS.value,))

    return Contest(
        ours={f'ours {dtype}': [ours(dtype)] for dtype in dtypes},
        package=[theirs(style) for style in styles],
        default=theirs(package.default_style(_DEVICE.value)),
    )


def _step_figures(seconds: dict[str, float], flop: int, peak: float) -> dict[str, dict[str, float]]:
    """Of each who ran: seconds a step, crops a second, and model FLOP utilisation."""
    figures = {}
    for name, turn in seconds.items():
        step = turn / _STEPS.value
        crops = _BATCH.value / step
        figures[name] = {
            'seconds_a_step': rounds.rounded(step),
            'crops_a_second': rounds.rounded(crops),
            'model_flop_utilisation': rounds.rounded(crops * flop / peak),
        }
    return figures


def _rows(figures: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The table: a line for each who ran."""
    header = ('', 'way', 's a step', 'crops/s', 'utilisation', 'GB', 'compile s')
    rows = [(*header, 'over default', 'over best')]
    for name, step in figures['steps'].items():
        facts = figures['facts'][name]
        compiling = ''  # the package's is in its first turn
        if 'compiling_seconds' in facts:
            compiling = rounds.rounded(facts['lowering_seconds'] + facts['compiling_seconds'])
        ratios = [
            figures['times_as_fast'].get(f'{name} over {other}', {'median': ''})['median']
            for other in (contest.DEFAULT, contest.BEST)
        ]
        memory = rounds.rounded(facts['peak_memory_gb'])
        rows.append((name, figures['ways'][name], *step.values(), memory, compiling, *ratios))
    return rows


if __name__ == '__main__':
    command.run(main)

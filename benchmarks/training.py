"""How fast is a training step, beside the recipe around the PyTorch package in the same run?

    python -m benchmarks.training --output=training.json
    python -m benchmarks.training --device=cuda --batch=16 --steps=10 --minutes=5

For either precision: gets the package's ways and ours ready, and tries them; then ours, the
package's eager way and its fastest take turns, warm. Our bfloat16 is compared with the package's
autocast, our float32 with its float32. Weights are random in all layers. --steps=N times N steps in
a row, as in training; after a pause the first is slower. Model FLOP utilisation is the operations
of the model's definition (0.98 TFLOP a crop at full size) over the fastest product of matrices of
either framework, on a CPU in the same precision, on a GPU in bfloat16. Ratios are times as fast,
each of one round. Peaks of memory are those of a turn: on a CPU of the process, on a GPU of its
arrays, ours since the start. On a GPU our float32 is JAX's default, TensorFloat-32 in all layers;
the package's is so in convolutions, when tuned in products too. The latents of each 16-bit way are
compared with the same side's float32, if both are in --dtypes. Seconds to compile are those
beside others, with --side_by_side.
"""

import functools
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

from absl import flags

from benchmarks import contest, operations, options, report, timing
from benchmarks.contest import Match
from benchmarks.remote import Remote, use_device
from benchmarks.units import Way
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
_LIMITS = options.Limits()
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
    flop = operations.training_step(config, _FRAMES.value)
    figures = {
        'device': _DEVICE.value,
        'model': _MODEL.value,
        'batch': _BATCH.value,
        'frames': _FRAMES.value,
        'steps_in_a_run': _STEPS.value,
        'rounds': _ROUNDS.value,
        'tflop_a_crop': flop / 1e12,
    }
    report.write(figures, _OUTPUT.value)
    peaks = {
        dtype: _fastest_product(dtype if _DEVICE.value == 'cpu' else 'bfloat16') for dtype in dtypes
    }
    figures['matrix_peak_tflop_a_second'] = {
        dtype: timing.rounded(peak / 1e12) for dtype, peak in peaks.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        tensors = str(pathlib.Path(folder) / 'tensors.npz')
        arguments = {'config': config, 'path': tensors}
        Remote('benchmarks.package:RandomWeights', arguments).close()
        matches = {dtype: _match(config, tensors, dtype, styles) for dtype in dtypes}
        with _LIMITS.units(_DEVICE.value) as units:
            figures['precisions'] = contest.hold(matches, _ROUNDS.value, units)
    for dtype, match in figures['precisions'].items():
        match['steps'] = _step_figures(match['seconds'], flop, peaks[dtype])
    report.publish(figures, _rows(figures['precisions']), _OUTPUT.value)
    failed = list(contest.failures(figures['precisions']))
    if failed:
        raise InputError(f'not measured: {"; ".join(failed)}')


@functools.cache
def _fastest_product(dtype: str) -> float:
    """Floating-point operations a second of the faster framework."""
    peaks = []
    for make in ('benchmarks.ours:OurMatrixProducts', 'benchmarks.package:PackageMatrixProducts'):
        with Remote(make, {'device': _DEVICE.value, 'dtype': dtype}) as remote:
            peaks.append(remote.call('peak'))
    return max(peaks)


def _match(config: ModelConfig, tensors: str, dtype: str, styles: Sequence[options.Style]) -> Match:
    shared = {'config': config, 'tensors': tensors, 'batch': _BATCH.value, 'frames': _FRAMES.value}

    def way(name: str, make: str, **more: Any) -> Way:
        return Way(name, f'benchmarks.{make}', tuple((shared | more).items()), (_STEPS.value,))

    def theirs(style: options.Style) -> Way:
        name, device = f'package {style.name}', _DEVICE.value
        return way(name, 'package:PackageTraining', device=device, style=style)

    return Match(
        ours=[way(f'ours {dtype}', 'ours:OurTraining', dtype=dtype)],
        package=[theirs(style) for style in options.styles_of(styles, dtype)],
        default=theirs(options.default_style(dtype)),
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


def _rows(precisions: dict[str, contest.Figures]) -> list[tuple[Any, ...]]:
    """The table: a line for each entrant of each precision."""
    header = ('', 'way', 's a step', 'crops/s', 'utilisation', 'GB', 'compile s')
    rows = [(*header, 'latents dB', 'over default', 'over best')]
    for dtype, match in precisions.items():
        rows.append((dtype, *[''] * (len(rows[0]) - 1)))
        for name, step in match['steps'].items():
            facts = match['facts'][name]
            compiling = ''  # the package compiles in its first turn
            if 'compiling_seconds' in facts:
                compiling = timing.rounded(facts['lowering_seconds'] + facts['compiling_seconds'])
            memory = timing.rounded(facts['peak_memory_gb'])
            more = (contest.snr(match, name), *contest.ratios(match, name))
            way = match['ways'][name]
            rows.append((f'  {name}', way, *step.values(), memory, compiling, *more))
    return rows


if __name__ == '__main__':
    command.run(main)

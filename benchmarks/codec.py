"""How fast are encoding and decoding, beside the PyTorch package in the same run?

    python -m benchmarks.codec --output=codec.json
    python -m benchmarks.codec --directions=encode --seconds=10 --channels=1 --pieces=1
    python -m benchmarks.codec --device=cuda --dtypes=float32,bfloat16 --batches=1,4,16

For 10 and 60 s, mono and stereo, one piece and several: tries every way of either side once, in
each batch size; then this project's fastest, the package as it comes, and the package's fastest
take turns, warm. Weights are random in all layers. Stops before timing if the latents of both
differ. Ratios are times as fast, each of one round. On a GPU our float32 is full precision; the
package's convolutions are in TensorFloat-32, when tuned its products too; with autocast, as it
comes, both are in float16.
"""

import dataclasses
import itertools
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

from absl import flags

from benchmarks import contest, options, report, timing
from benchmarks.contest import Contest, Way
from benchmarks.remote import Remote, use_device
from benchmarks.workload import Workload
from m2l_jax.evaluation.parity import measure
from m2l_jax.interface import command
from m2l_jax.interface.errors import InputError
from m2l_jax.model.config import ModelConfig

_DEVICE = options.define_device()
_MODEL = options.define_size()
_DIRECTIONS = flags.DEFINE_list('directions', ['encode', 'decode'], 'One or both.')
_SECONDS = flags.DEFINE_list('seconds', ['10', '60'], 'Of a piece.')
_CHANNELS = flags.DEFINE_list('channels', ['1', '2'], 'Of a piece.')
_PIECES = flags.DEFINE_list('pieces', ['1', '4'], 'Encoded or decoded in one call.')
_BATCHES = flags.DEFINE_list('batches', ['1', '2', '4'], 'Rows at once, to be tried.')
_DTYPES = options.define_dtypes()
_STYLES = options.define_styles()
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Turns of each.', lower_bound=1)
_BUDGET = options.define_budget()
_OUTPUT = report.define_output()

# Between latents in float32. A GPU's libraries choose algorithms, some of which round more.
_DECIBELS = {'cpu': 95, 'cuda': 80}


def main() -> None:
    """Checks, tries, takes turns, and prints the figures."""
    config = options.model_config(_MODEL.value)
    directions = options.words(_DIRECTIONS, ('encode', 'decode'))
    workloads = _workloads(config)
    options.dtypes(_DTYPES)
    batches = options.numbers(_BATCHES, int)
    styles = options.chosen_styles(_STYLES.value, _DEVICE.value)
    use_device(_DEVICE.value)
    with tempfile.TemporaryDirectory() as folder:
        makers = _Makers(config, str(pathlib.Path(folder) / 'tensors.npz'))
        Remote('benchmarks.package:RandomWeights', vars(makers)).close()
        figures = {
            'device': _DEVICE.value,
            'model': _MODEL.value,
            'latents_agree_to_decibels': _check(makers),
            'decibels_asked_for_in_float32': _DECIBELS[_DEVICE.value],
            'rounds': _ROUNDS.value,
            'cases': [],
        }
        report.write(figures, _OUTPUT.value)
        for direction, workload in itertools.product(directions, workloads):
            case = {'direction': direction, **dataclasses.asdict(workload)}
            try:
                case |= _contest(makers, direction, workload, batches, styles).hold(
                    _ROUNDS.value, _BUDGET.value
                )
            except InputError as error:  # the other cases still run
                case['failed'] = str(error)
            figures['cases'].append(case)
            report.write(figures, _OUTPUT.value)
    ended = [case for case in figures['cases'] if 'failed' not in case]
    report.publish(figures, _rows(ended), _OUTPUT.value)
    failed = [f'{_name(case)}: {case["failed"]}' for case in figures['cases'] if 'failed' in case]
    if failed:
        raise InputError(f'not measured: {"; ".join(failed)}')


def _workloads(config: ModelConfig) -> list[Workload]:
    seconds = options.numbers(_SECONDS, float)
    least = (config.samples_per_latent + config.spectrogram.reach) / config.spectrogram.sample_rate
    if min(seconds) < least:
        raise InputError(f'--seconds has {min(seconds):g}: the model takes {least:.2f} s at least')
    return [
        Workload(pieces, channels, length)
        for length, channels, pieces in itertools.product(
            seconds, options.numbers(_CHANNELS, int), options.numbers(_PIECES, int)
        )
    ]


@dataclasses.dataclass(frozen=True)
class _Makers:
    """Makes either side's ways of the same weights, which are in the file `path`."""

    config: ModelConfig
    path: str

    def ours(self, workload: Workload, dtype: str, *arguments: Any) -> Way:
        return self._way('ours:OurCodec', f'ours {dtype}', workload, arguments, dtype=dtype)

    def package(self, workload: Workload, style: options.Style, *arguments: Any) -> Way:
        more = {'device': _DEVICE.value, 'style': style}
        return self._way(
            'package:PackageCodec', f'package {style.name}', workload, arguments, **more
        )

    def _way(
        self, make: str, name: str, workload: Workload, arguments: Sequence[Any], **more: Any
    ) -> Way:
        name = f'{name}, batch {arguments[-1]}' if arguments else name
        given = {'config': self.config, 'tensors': self.path, 'workload': workload, **more}
        return Way(name, f'benchmarks.{make}', tuple(given.items()), tuple(arguments))


def _check(makers: _Makers) -> dict[str, float]:
    """Signal-to-noise ratio of our latents in dB by dtype, against the package's in float32.

    Raises:
      InputError: if those in float32 differ by more than rounding.
    """
    least = _DECIBELS[_DEVICE.value]
    workload = Workload(pieces=1, channels=2, seconds_of_a_piece=2.0)
    with makers.package(workload, options.Style()).start() as remote:
        expected = remote.call('encode')
    ratios = {}
    for dtype in dict.fromkeys(['float32', *_DTYPES.value]):
        with makers.ours(workload, dtype).start() as remote:
            ratio = measure('latents', remote.call('encode'), expected, dtype).snr
        if dtype == 'float32' and not ratio >= least:
            raise InputError(
                f'the latents of both are {ratio:.1f} dB apart, not {least}: nothing is timed '
                'before they agree'
            )
        ratios[dtype] = timing.rounded(ratio)
    return ratios


def _contest(
    makers: _Makers,
    direction: str,
    workload: Workload,
    batches: Sequence[int],
    styles: Sequence[options.Style],
) -> Contest:
    """Each way with each batch size."""
    batches = sorted({min(batch, workload.rows) for batch in batches})
    default = options.default_style(_DEVICE.value)
    return Contest(
        ours={
            f'ours {dtype}': [makers.ours(workload, dtype, direction, batch) for batch in batches]
            for dtype in _DTYPES.value
        },
        package=[
            makers.package(workload, style, direction, batch)
            for style in styles
            for batch in batches
        ],
        default=makers.package(workload, default, direction, 1),
    )


def _rows(cases: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The table: a line for each entrant of each case."""
    rows = [('', 'way', 's', 'x real time', 'GB', 'over default', 'over best')]
    for case in cases:
        rows.append((_name(case), '', '', '', '', '', ''))
        for name, seconds in case['seconds'].items():
            real_time = timing.rounded(case['pieces'] * case['seconds_of_a_piece'] / seconds)
            memory = timing.rounded(case['facts'][name]['peak_memory_gb'])
            ratios = contest.ratios(case, name)
            rows.append((f'  {name}', case['ways'][name], seconds, real_time, memory, *ratios))
    return rows


def _name(case: dict[str, Any]) -> str:
    channels = 'mono' if case['channels'] == 1 else 'stereo'
    return f'{case["direction"]} {case["pieces"]} x {case["seconds_of_a_piece"]:g} s, {channels}'


if __name__ == '__main__':
    command.run(main)

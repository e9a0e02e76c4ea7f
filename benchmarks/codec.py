"""How fast are encoding and decoding, beside the PyTorch package in the same run?

    python -m benchmarks.codec --output=codec.json
    python -m benchmarks.codec --directions=encode --seconds=10 --channels=1 --pieces=1
    python -m benchmarks.codec --device=cuda --dtypes=float32,bfloat16 --batches=1,4,16

For 10 and 60 s, mono and stereo, one piece and several: first, every way of either side is tried
once, in each size of batch; then this project's fastest, the package as it comes, and the package
in its fastest way take turns, warm. Weights are random in all layers. Before, both encode the same
sounds, and it ends there if the latents differ. Ratios are times as fast, each of one round. Our
float32 is the true one on a GPU too. The package's convolutions are in TensorFloat-32 there, and
where it is tuned its products as well; with autocast, as it comes, both are in float16.
"""

import dataclasses
import itertools
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

from absl import flags

from benchmarks import contest, package, report, rounds
from benchmarks.choices import numbers, precisions, words
from benchmarks.contest import Contest, Way
from benchmarks.remote import Remote, use_device
from benchmarks.sizes import define_size, model_config
from benchmarks.workload import Workload
from m2l_jax.evaluation.parity import measure
from m2l_jax.interface import command
from m2l_jax.interface.errors import InputError
from m2l_jax.model.config import ModelConfig

_DEVICE = flags.DEFINE_enum('device', 'cpu', ['cpu', 'cuda'], 'Of both sides.')
_MODEL = define_size()
_DIRECTIONS = flags.DEFINE_list('directions', ['encode', 'decode'], 'One or both.')
_SECONDS = flags.DEFINE_list('seconds', ['10', '60'], 'Of a piece.')
_CHANNELS = flags.DEFINE_list('channels', ['1', '2'], 'Of a piece.')
_PIECES = flags.DEFINE_list('pieces', ['1', '4'], 'That are encoded, or decoded, in one call.')
_BATCHES = flags.DEFINE_list('batches', ['1', '2', '4'], 'Rows at once, to be tried.')
_DTYPES = flags.DEFINE_list('dtypes', ['float32'], 'Of this project: float32, bfloat16.')
_STYLES = package.define_styles()
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Turns of each.', lower_bound=1)
_BUDGET = flags.DEFINE_float('budget', 600, 'Seconds that a run may take on trial, compiling too.')
_OUTPUT = report.define_output()

# Between latents in float32: on a CPU what `m2l_jax.compare` asks for. Of a GPU's algorithms each
# framework makes its own choice, and some of them (Winograd's) round more.
_DECIBELS = {'cpu': 95, 'cuda': 80}
_OURS = 'benchmarks.our_codec:OurCodec'
_PACKAGE = 'benchmarks.package_codec:PackageCodec'


def main() -> None:
    """Checks, tries, takes turns, and prints the figures."""
    config = model_config(_MODEL.value)
    directions = words(_DIRECTIONS, ('encode', 'decode'))
    workloads = _workloads(config)
    precisions(_DTYPES)
    batches = numbers(_BATCHES, int)
    styles = package.chosen_styles(_STYLES.value, _DEVICE.value)
    use_device(_DEVICE.value)
    with tempfile.TemporaryDirectory() as folder:
        makers = _Makers(config, str(pathlib.Path(folder) / 'tensors.npz'))
        makers.write_tensors()
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
            except InputError as error:  # the others are to be seen all the same
                case['failed'] = str(error)
            figures['cases'].append(case)
            report.write(figures, _OUTPUT.value)  # for who does not wait for the others
    ended = [case for case in figures['cases'] if 'failed' not in case]
    report.publish(figures, _rows(ended), _OUTPUT.value)
    failed = [
        f'{case["direction"]} {_told(case)}: {case["failed"]}'
        for case in figures['cases']
        if 'failed' in case
    ]
    if failed:
        raise InputError(f'not measured: {"; ".join(failed)}')


def _workloads(config: ModelConfig) -> list[Workload]:
    seconds = numbers(_SECONDS, float)
    least = (config.samples_per_latent + config.spectrogram.reach) / config.spectrogram.sample_rate
    if min(seconds) < least:
        raise InputError(f'--seconds has {min(seconds):g}: the model takes {least:.2f} s at least')
    return [
        Workload(pieces, channels, length)
        for length, channels, pieces in itertools.product(
            seconds, numbers(_CHANNELS, int), numbers(_PIECES, int)
        )
    ]


@dataclasses.dataclass(frozen=True)
class _Makers:
    """What makes each side's codec of the same weights."""

    config: ModelConfig
    tensors: str

    def write_tensors(self) -> None:
        """In a process of its own: it takes PyTorch."""
        arguments = {'config': self.config, 'path': self.tensors}
        Remote('benchmarks.package_codec:RandomWeights', arguments).close()

    def ours(self, workload: Workload, dtype: str, *arguments: Any) -> Way:
        options = {**self._shared(workload), 'dtype': dtype}
        return Way(_named(f'ours {dtype}', arguments), _OURS, tuple(options.items()), arguments)

    def package(self, workload: Workload, style: package.Style, *arguments: Any) -> Way:
        options = {**self._shared(workload), 'device': _DEVICE.value, 'style': style}
        name = _named(f'package {style.name}', arguments)
        return Way(name, _PACKAGE, tuple(options.items()), arguments)

    def _shared(self, workload: Workload) -> dict[str, Any]:
        return {'config': self.config, 'tensors': self.tensors, 'workload': workload}


def _named(name: str, arguments: Sequence[Any]) -> str:
    return f'{name}, batch {arguments[-1]}' if arguments else name


def _check(makers: _Makers) -> dict[str, float]:
    """Signal-to-noise ratios of our latents in dB, the package's in float32 being the signal.

    Raises:
      InputError: if those in float32 differ by more than rounding does.
    """
    least = _DECIBELS[_DEVICE.value]
    workload = Workload(pieces=1, channels=2, seconds_of_a_piece=2.0)
    with makers.package(workload, package.Style()).start() as remote:
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
        ratios[dtype] = rounds.rounded(ratio)
    return ratios


def _contest(
    makers: _Makers,
    direction: str,
    workload: Workload,
    batches: Sequence[int],
    styles: Sequence[package.Style],
) -> Contest:
    """Each way with each size of batch."""
    batches = sorted({min(batch, workload.rows) for batch in batches})
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
        default=makers.package(workload, package.default_style(_DEVICE.value), direction, 1),
    )


def _rows(cases: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The table: a line for each who ran."""
    rows = [('', 'way', 's', 'x real time', 'GB', 'over default', 'over best')]
    for case in cases:
        rows.append((f'{case["direction"]} {_told(case)}', '', '', '', '', '', ''))
        for name, seconds in case['seconds'].items():
            ratios = [
                case['times_as_fast'].get(f'{name} over {other}', {'median': ''})['median']
                for other in (contest.DEFAULT, contest.BEST)
            ]
            real_time = rounds.rounded(case['pieces'] * case['seconds_of_a_piece'] / seconds)
            memory = rounds.rounded(case['facts'][name]['peak_memory_gb'])
            rows.append((f'  {name}', case['ways'][name], seconds, real_time, memory, *ratios))
    return rows


def _told(case: dict[str, Any]) -> str:
    return (
        f'{case["pieces"]} x {case["seconds_of_a_piece"]:g} s, '
        f'{"mono" if case["channels"] == 1 else "stereo"}'
    )


if __name__ == '__main__':
    command.run(main)

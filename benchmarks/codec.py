"""How fast are encoding and decoding, beside the PyTorch package in the same run?

    python -m benchmarks.codec --output=codec.json
    python -m benchmarks.codec --directions=encode --seconds=10 --channels=1 --pieces=1
    python -m benchmarks.codec --device=cuda --batches=1,4,16 --minutes=5

For 10 and 60 s, mono and stereo, one piece and several, and for either precision: gets every way of
either side ready in each batch size, and tries it; then this project's fastest, the package's plain
way, and the package's fastest take turns, warm. Our bfloat16 is compared with the package's
autocast (to bfloat16 on a CPU; to float16 on a GPU, as it comes), our float32 with its float32. On
a GPU our float32 is full precision; the package's convolutions are in TensorFloat-32, when tuned
its products too. Weights are random in all layers. Stops before timing if the float32 latents of
both differ. Ratios are times as fast, each of one round. Where encoding, the latents of each 16-bit
way are compared with the same side's float32, if both are in --dtypes. Peaks of memory are those of
a turn; ours on a GPU since the start.
"""

import dataclasses
import itertools
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

from absl import flags

from benchmarks import contest, options, report, timing
from benchmarks.contest import Match
from benchmarks.remote import Remote, use_device
from benchmarks.units import Way
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
_LIMITS = options.Limits()
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
        cases = list(itertools.product(directions, workloads))
        for number, (direction, workload) in enumerate(cases):
            matches = {
                dtype: _match(makers, direction, workload, batches, styles, dtype)
                for dtype in _DTYPES.value
            }
            with _LIMITS.units(_DEVICE.value, left=len(cases) - number) as units:
                precisions = contest.hold(matches, _ROUNDS.value, units)
            case = {'direction': direction, **dataclasses.asdict(workload)}
            figures['cases'].append({**case, 'precisions': precisions})
            report.write(figures, _OUTPUT.value)
    report.publish(figures, _rows(figures['cases']), _OUTPUT.value)
    failed = [
        f'{_name(case)}: {failure}'
        for case in figures['cases']
        for failure in contest.failures(case['precisions'])
    ]
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


def _check(makers: _Makers) -> float:
    """Signal-to-noise ratio of our latents in dB against the package's, both in float32.

    Raises:
      InputError: if they differ by more than rounding.
    """
    workload = Workload(pieces=1, channels=2, seconds_of_a_piece=2.0)
    latents = []
    for way in (makers.ours(workload, 'float32'), makers.package(workload, options.Style())):
        with way.start() as remote:
            remote.call('run', 'encode', 1)
            latents.append(remote.call('latents'))
    ratio, least = measure('latents', *latents, 'float32').snr, _DECIBELS[_DEVICE.value]
    if not ratio >= least:
        raise InputError(
            f'the latents of both are {ratio:.1f} dB apart, not {least}: nothing is timed before '
            'they agree'
        )
    return timing.rounded(ratio)


def _match(
    makers: _Makers,
    direction: str,
    workload: Workload,
    batches: Sequence[int],
    styles: Sequence[options.Style],
    dtype: str,
) -> Match:
    """Each way of a precision with each batch size."""
    batches = sorted({min(batch, workload.rows) for batch in batches})
    return Match(
        ours=[makers.ours(workload, dtype, direction, batch) for batch in batches],
        package=[
            makers.package(workload, style, direction, batch)
            for style in options.styles_of(styles, dtype)
            for batch in batches
        ],
        default=makers.package(workload, options.default_style(dtype), direction, 1),
    )


def _rows(cases: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The table: a line for each entrant of each case."""
    rows = [('', 'way', 's', 'x real time', 'GB', 'latents dB', 'over default', 'over best')]
    precisions = [(case, *precision) for case in cases for precision in case['precisions'].items()]
    for case, dtype, match in precisions:
        rows.append((f'{_name(case)}, {dtype}', *[''] * 7))
        for name, seconds in match['seconds'].items():
            way = match['ways'][name]
            real_time = timing.rounded(case['pieces'] * case['seconds_of_a_piece'] / seconds)
            memory = timing.rounded(match['facts'][name]['peak_memory_gb'])
            more = (memory, contest.snr(match, name), *contest.ratios(match, name))
            rows.append((f'  {name}', way, seconds, real_time, *more))
    return rows


def _name(case: dict[str, Any]) -> str:
    channels = 'mono' if case['channels'] == 1 else 'stereo'
    return f'{case["direction"]} {case["pieces"]} x {case["seconds_of_a_piece"]:g} s, {channels}'


if __name__ == '__main__':
    command.run(main)

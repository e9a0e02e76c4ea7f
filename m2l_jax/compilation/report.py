"""The compiler's figures of a program: memory, work and traffic of one chip."""

import dataclasses
import math
import time
from typing import Any

from m2l_jax.compilation.collectives import Collective, find_collectives
from m2l_jax.compilation.kernels import Kernels, count_kernels
from m2l_jax.compilation.programs import Program
from m2l_jax.compilation.topologies import Topology
from m2l_jax.training.mesh import bytes_per_device

_LAUNCH_SECONDS = 4e-6  # of a kernel on a GPU
_GPU_NOTES = (
    'choices that cuDNN and XLA make by timing on the GPU, with their scratch memory',
    'reads that the second-level cache serves: the traffic is an upper bound',
)
_PREFIXES = ((1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e3, 'k'), (1, ''), (1e-3, 'm'), (1e-6, 'µ'))


@dataclasses.dataclass(frozen=True)
class Report:
    """Of one chip and one call of the program; bytes, seconds, and floating-point operations.

    Attributes:
      program: 'train', 'encode' or 'decode'.
      topology: e.g. 'v4:2x2x4'.
      chips, hosts: in the topology.
      rows_per_chip: crops or chunks.
      fitting_rows: about as many would fit, if memory grows in proportion to them.
      memory: of the chip, that a program can have.
      arguments: parameters, state and batch.
      temporaries: arrays within the call.
      code: the program itself.
      needed: all of these together.
      flops: floating-point operations, loops counted once; on a GPU of convolutions and matrix
        products only.
      accessed: bytes read and written in HBM, as the compiler (TPU) or `kernels` (GPU) counts them.
      kernels: a GPU's by kind, None for a TPU.
      collectives: between chips.
      compile_seconds: on this machine, without tracing.
      compiler_seconds: the compiler's estimate of a call's time, None where it makes no sense.
      roofline_seconds: least time for `flops` and `accessed` at the chip's peak rates.
      launch_seconds: to start the kernels one by one, 4 µs each.
      transfer_seconds: least time for the collectives, with all of the chip's links busy.
      notes: work that these figures leave out.
    """

    program: str
    topology: str
    chips: int
    hosts: int
    rows_per_chip: int
    fitting_rows: int
    memory: int
    arguments: int
    temporaries: int
    code: int
    needed: int
    flops: float
    accessed: float
    kernels: Kernels | None
    collectives: list[Collective]
    compile_seconds: float
    compiler_seconds: float | None
    roofline_seconds: float
    launch_seconds: float
    transfer_seconds: float
    notes: tuple[str, ...]

    def describe(self) -> str:
        """The same in lines of text."""
        unit = 'crop' if self.program == 'train' else 'chunk'
        lines = [
            f'{self.program} on {self.topology}: {_counted(self.chips, "chip")}, '
            f'{_counted(self.hosts, "host")}, {_counted(self.rows_per_chip, unit)} a chip',
            f'memory a chip   {_scaled(self.needed, "B")} of {_scaled(self.memory, "B")}: '
            f'arguments {_scaled(self.arguments, "B")}, temporaries '
            f'{_scaled(self.temporaries, "B")}, code {_scaled(self.code, "B")}; about '
            f'{_counted(self.fitting_rows, unit)} would fit',
            f'work a chip     {_scaled(self.flops, "FLOP")}, {_scaled(self.accessed, "B")} of '
            'memory traffic',
        ]
        if self.kernels:
            lines += _describe_kernels(self.kernels)
        lines += [
            f'{kind.kind:<16}{_scaled(kind.bytes, "B")} in {_counted(kind.count, "operation")}, '
            f'{kind.asynchronous} of them asynchronous'
            for kind in self.collectives
        ]
        lines += [
            f'time a call     {self._estimate()}; at least {_scaled(self.roofline_seconds, "s")}, '
            f'and {_scaled(self.transfer_seconds, "s")} between chips',
            f'compiled in     {self.compile_seconds:.0f} s',
        ]
        lines += [f'not counted     {note}' for note in self.notes]
        return '\n'.join(lines)

    def _estimate(self) -> str:
        if self.kernels:
            return f'{_scaled(self.launch_seconds, "s")} to start kernels one by one'
        if self.compiler_seconds is None:
            return 'no estimate that makes sense'
        return f'{_scaled(self.compiler_seconds, "s")} as the compiler estimates'


def _describe_kernels(kernels: Kernels) -> list[str]:
    total = sum(kernels.counts.values())
    return [f'kernels         {total}'] + [
        f'  {kind + "s":<18}{count}, {_scaled(kernels.traffic[kind], "B")}'
        for kind, count in kernels.counts.items()
    ]


def compile_program(program: Program, topology: Topology, options: dict[str, Any]) -> Report:
    """Compiles for the topology's chips.

    Args:
      program: with its arguments laid out over the topology's devices.
      topology: the chips.
      options: the compiler's.

    Raises:
      jax.errors.JaxRuntimeError: if the program does not fit.
    """
    lowered = program.function.lower(*program.arguments)
    start = time.monotonic()
    compiled = lowered.compile(compiler_options=options)
    seconds = time.monotonic() - start
    sizes, text = compiled.memory_analysis(), compiled.as_text()
    collectives = find_collectives(text)
    needed = (
        sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        - sizes.alias_size_in_bytes  # results in the place of arguments
        + sizes.temp_size_in_bytes
        + sizes.generated_code_size_in_bytes
    )
    chip, chips = topology.chip, len(topology.devices)
    kernels = count_kernels(text) if chip.platform == 'cuda' else None
    flops, accessed, estimate = _costs(compiled, kernels)
    state = bytes_per_device(program.arguments[0])  # or parameters: what no row adds to
    share = max(0.0, chip.memory - state) / max(1, needed - state)
    return Report(
        program=program.name,
        topology=topology.name,
        chips=chips,
        hosts=topology.hosts,
        rows_per_chip=program.rows_per_chip,
        fitting_rows=int(program.rows_per_chip * share),
        memory=chip.memory,
        arguments=sizes.argument_size_in_bytes,
        temporaries=sizes.temp_size_in_bytes,
        code=sizes.generated_code_size_in_bytes,
        needed=needed,
        flops=flops,
        accessed=accessed,
        kernels=kernels,
        collectives=collectives,
        compile_seconds=seconds,
        compiler_seconds=estimate if estimate > 0 else None,
        roofline_seconds=max(flops / chip.flops, accessed / chip.bandwidth),
        launch_seconds=_LAUNCH_SECONDS * sum(kernels.counts.values()) if kernels else 0.0,
        transfer_seconds=sum(each.sent(chips) for each in collectives) / chip.interconnect,
        notes=program.notes + (_GPU_NOTES if kernels else ()),
    )


def _costs(compiled: Any, kernels: Kernels | None) -> tuple[float, float, float]:
    """Operations, traffic in bytes, and the compiler's estimate in seconds; NaN if unknown."""
    if kernels:
        return kernels.flops, float(sum(kernels.traffic.values())), math.nan
    costs = compiled.cost_analysis() or {}
    names = ('flops', 'bytes accessed', 'optimal_seconds')
    flops, accessed, estimate = (costs.get(name, math.nan) for name in names)
    return flops, accessed, estimate


def _counted(count: int, noun: str) -> str:
    return f'{count} {noun}' if count == 1 else f'{count} {noun}s'


def _scaled(value: float, unit: str) -> str:
    """A value with three digits and a prefix, e.g. 31.2 GB; NaN is unknown."""
    if math.isnan(value):
        return f'unknown {unit}'
    if not value:
        return f'0 {unit}'
    smallest = _PREFIXES[-1]
    factor, prefix = next((entry for entry in _PREFIXES if value >= entry[0]), smallest)
    return f'{value / factor:.3g} {prefix}{unit}'

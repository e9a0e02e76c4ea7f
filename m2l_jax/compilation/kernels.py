"""Kernels of a GPU's compiled program: their number, traffic and arithmetic, read from its text.

The GPU's compiler reports memory, but neither operations nor traffic. Its program (HLO, after
fusion and scheduling) names each kernel with the types of what it reads and writes.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

from m2l_jax.compilation.collectives import KINDS

# What starts no kernel: names of values, and the ends of asynchronous operations.
_FREE = {
    *('parameter', 'constant', 'bitcast', 'tuple', 'get-tuple-element'),
    *('after-all', 'opt-barrier', 'partition-id', 'replica-id'),
}
_COLLECTIVE = re.compile(rf'({KINDS})(-start)?$')
_LAYOUT = {
    *('parameter', 'constant', 'bitcast', 'tuple', 'copy', 'transpose', 'reshape', 'convert'),
    *('broadcast', 'slice', 'dynamic-slice', 'concatenate', 'pad'),
}
_COMPUTATION = re.compile(r'^(ENTRY )?%(\S+) \(.*\{$')
_INSTRUCTION = re.compile(r'^\s+(ROOT )?(%\S+) = (.*)$')
_ARRAY = re.compile(r'\b([a-z]+)(\d*)\w*\[([\d,]*)\]')
_CALLED = re.compile(r'(?:calls|to_apply|body|called_computations)=\{?%([\w.\-]+)')
_BRANCHES = re.compile(r'branch_computations=\{([^}]*)\}')
_SLICES = ('slice', 'dynamic-slice', 'gather')


@dataclasses.dataclass(frozen=True)
class _Instruction:
    """One line of a computation; `arrays` are (bytes of an element, dimensions) of its result."""

    name: str
    opcode: str
    arrays: tuple[tuple[float, tuple[int, ...]], ...]
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    @property
    def size(self) -> float:
        """Bytes of the result."""
        return sum(width * math.prod(dimensions) for width, dimensions in self.arrays)

    @property
    def elements(self) -> int:
        """Numbers in the result."""
        return sum(math.prod(dimensions) for _, dimensions in self.arrays)


@dataclasses.dataclass(frozen=True)
class Kernels:
    """Kernels of one call of a program; loops count once.

    Attributes:
      counts: kernels by kind: 'convolution', 'matrix product', 'attention', 'reduction', 'layout'
        (copies, transposes, conversions), 'fusion' (other arithmetic), 'collective', 'other'.
      traffic: bytes that each kind reads and writes, if nothing stays in a cache between kernels.
      flops: operations of convolutions and matrix products, two a multiply-add.
    """

    counts: dict[str, int]
    traffic: dict[str, float]
    flops: float


def count_kernels(program: str) -> Kernels:
    """Counts the kernels of a GPU's program in HLO's text form."""
    computations, entry = _parse(program)
    counts: collections.Counter[str] = collections.Counter()
    traffic: collections.Counter[str] = collections.Counter()
    flops = 0.0
    for instruction, scope in _kernels(computations, entry):
        body = _body(instruction, computations)
        kind = _kind(instruction, body)
        counts[kind] += 1
        traffic[kind] += _traffic(instruction, scope, body)
        flops += _flops(instruction, scope)
        flops += sum(_flops(inner, body) for inner in body.values())
    return Kernels(dict(counts.most_common()), dict(traffic.most_common()), flops)


_Computation = dict[str, _Instruction]


def _parse(program: str) -> tuple[dict[str, _Computation], str]:
    """The program's computations by name, and the name of the first to run."""
    computations: dict[str, _Computation] = {}
    current: _Computation = {}
    entry = ''
    for line in program.splitlines():
        if header := _COMPUTATION.match(line):
            current = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
        elif match := _INSTRUCTION.match(line):
            current[match[2]] = _instruction(match[2], match[3], bool(match[1]))
    return computations, entry


def _instruction(name: str, rest: str, is_root: bool) -> _Instruction:
    """Splits `TYPE opcode(operands), attributes`."""
    end = _closing(rest) + 1 if rest.startswith('(') else rest.index(' ')
    result, rest = rest[:end], rest[end:].strip()
    opcode, _, rest = rest.partition('(')
    end = _closing('(' + rest) - 1
    arrays = tuple(
        (int(bits or 8) / 8, _dimensions(lengths))  # no bits in 'pred', of a byte
        for _, bits, lengths in _ARRAY.findall(result)
    )
    operands = tuple(re.findall(r'%[\w.\-]+', rest[:end]))
    return _Instruction(name, opcode, arrays, operands, rest[end + 1 :], is_root)


def _closing(text: str) -> int:
    """The place of the bracket that closes the first one."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == '(') - (character == ')')
        if not depth:
            return place
    raise ValueError(f'no end of {text[:80]}')


def _dimensions(text: str) -> tuple[int, ...]:
    return tuple(int(length) for length in text.split(',') if length)


def _kernels(
    computations: dict[str, _Computation], name: str
) -> Iterator[tuple[_Instruction, _Computation]]:
    """The instructions that start kernels, each with the computation it stands in."""
    scope = computations[name]
    for instruction in scope.values():
        opcode = instruction.opcode
        if opcode in _FREE or opcode.endswith('-done'):
            continue
        if opcode in ('while', 'call', 'conditional', 'async-start'):
            called = _CALLED.findall(instruction.attributes)
            for branches in _BRANCHES.findall(instruction.attributes):
                called += re.findall(r'%([\w.\-]+)', branches)
            for inner in called:
                yield from _kernels(computations, inner)
        else:
            yield instruction, scope


def _body(instruction: _Instruction, computations: dict[str, _Computation]) -> _Computation:
    """The computation that a fusion runs; empty for other instructions."""
    if instruction.opcode != 'fusion':
        return {}
    return computations[_CALLED.search(instruction.attributes)[1]]


def _kind(instruction: _Instruction, body: _Computation) -> str:
    if _COLLECTIVE.match(instruction.opcode):
        return 'collective'
    target = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)
    text = target[1].lower() if target else instruction.opcode
    opcodes = {inner.opcode for inner in body.values()}
    if 'fmha' in text:
        return 'attention'
    if 'conv' in text.replace('convert', '') or 'convolution' in opcodes:
        return 'convolution'
    if 'gemm' in text or 'cublas' in text or text == 'dot' or 'dot' in opcodes:
        return 'matrix product'
    if opcodes & {'reduce', 'reduce-window'} or text in ('reduce', 'reduce-window'):
        return 'reduction'
    if text in ('copy', 'copy-start', 'transpose', 'convert') or (opcodes and opcodes <= _LAYOUT):
        return 'layout'
    return 'fusion' if body else 'other'


def _traffic(instruction: _Instruction, scope: _Computation, body: _Computation) -> float:
    """Bytes read and written by a kernel."""
    if not body:
        return instruction.size + sum(scope[name].size for name in instruction.operands)
    users: dict[str, list[_Instruction]] = collections.defaultdict(list)
    for inner in body.values():
        for operand in inner.operands:
            users[operand].append(inner)
    read = sum(
        _read(inner, users) * inner.size / max(1, inner.elements)
        for inner in body.values()
        if inner.opcode == 'parameter'
    )
    root = next(inner for inner in body.values() if inner.is_root)
    results = [body[name] for name in root.operands] if root.opcode == 'tuple' else [root]
    return read + sum(_written(result, body) for result in results)


def _read(value: _Instruction, users: dict[str, list[_Instruction]]) -> float:
    """Elements of a fusion's parameter that it needs: of one that is only sliced, the slices."""
    total = 0.0
    for user in users[value.name]:
        if user.opcode in _SLICES and user.operands[0] == value.name:
            total += user.elements
        elif user.opcode in ('bitcast', 'convert'):
            total += _read(user, users)
        elif user.opcode != 'dynamic-update-slice' or user.operands[0] != value.name:
            return value.elements  # else it is written in place
    return min(total, value.elements)


def _written(value: _Instruction, body: _Computation) -> float:
    """Bytes that a fusion writes of a result: of one updated in place, the update."""
    if value.opcode == 'bitcast':
        return _written(body[value.operands[0]], body)
    if value.opcode == 'dynamic-update-slice':
        return body[value.operands[1]].size
    return value.size


def _flops(instruction: _Instruction, scope: _Computation) -> float:
    """Operations of a convolution by cuDNN, or of a matrix product; 0 for all else."""
    if instruction.opcode == 'dot':
        contracted = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', instruction.attributes)[1]
        left = scope[instruction.operands[0]].arrays[0][1]
        length = math.prod(left[axis] for axis in _dimensions(contracted))
        return 2.0 * math.prod(instruction.arrays[0][1]) * length
    labels = re.search(r'dim_labels=\w+_(\w+)->', instruction.attributes)
    if labels is None:
        return 0.0
    first, second = (scope[name].arrays[0][1] for name in instruction.operands[:2])
    result = instruction.arrays[0][1]
    # (what the forward convolution writes, its kernel)
    if 'BackwardFilter' in instruction.attributes:
        outputs, kernel = second, result
    elif 'BackwardInput' in instruction.attributes:
        outputs, kernel = first, second
    else:
        outputs, kernel = result, second
    taps = math.prod(kernel) // kernel[labels[1].index('o')]
    return 2.0 * math.prod(outputs) * taps

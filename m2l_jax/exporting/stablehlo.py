"""Programs in StableHLO by `jax.export`, with their weights beside them."""

import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from jax import export

from m2l_jax.exporting.functions import Function
from m2l_jax.interface.devices import standard_jax

LOAD = """\
import jax, numpy as np

def load(name):
    with open(f'{name}.jax', 'rb') as file:
        program = jax.export.deserialize(file.read())
    weights = jax.device_put(dict(np.load(f'{name}.npz')))
    return lambda *arguments: run(program, weights, *arguments)

run = jax.jit(lambda program, *arguments: program.call(*arguments), static_argnums=0)
encode, decode = load('encode'), load('decode')
"""


def write_program(
    folder: pathlib.Path, functions: Sequence[Function], platforms: Sequence[str]
) -> None:
    """Writes `encode.jax`, `encode.npz` and the like: programs of any batch and length.

    Args:
      folder: to write into.
      functions: see `export_functions`.
      platforms: JAX's names: 'cpu', 'cuda', 'rocm', 'tpu'.
    """
    for function in functions:
        (folder / f'{function.name}.jax').write_bytes(_program(function, platforms))
        np.savez(folder / f'{function.name}.npz', **function.weights)


@standard_jax()
def _program(function: Function, platforms: Sequence[str]) -> bytes:
    scope = export.SymbolicScope()
    weights = {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype)
        for name, array in function.weights.items()
    }
    arguments = [
        jax.ShapeDtypeStruct(export.symbolic_shape(each.shape, scope=scope), each.dtype)
        for each in function.arguments
    ]
    exported = export.export(jax.jit(function.call), platforms=platforms)
    return bytes(exported(weights, *arguments).serialize())

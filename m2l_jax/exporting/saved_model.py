"""A SavedModel of TensorFlow, by `jax2tf`: it holds the program in StableHLO, and variables."""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

from m2l_jax.exporting.functions import Function
from m2l_jax.interface.devices import standard_jax
from m2l_jax.interface.errors import first_line

LOAD = """\
import numpy as np, tensorflow as tf

loaded = tf.saved_model.load('.')
encode, decode = loaded.encode, loaded.decode
"""


@standard_jax()
def write_saved_model(
    folder: pathlib.Path, functions: Sequence[Function], platforms: Sequence[str]
) -> None:
    """Writes a SavedModel of any batch and length; arguments as in `stablehlo.write_program`."""
    import tensorflow as tf
    from jax.experimental import jax2tf

    module = tf.Module()
    for function in functions:
        names = list(function.weights)
        variables = [tf.Variable(array, trainable=False) for array in function.weights.values()]
        setattr(module, f'{function.name}_weights', variables)

        def call(weights: list[Any], *arguments: Any, function=function, names=names) -> Any:
            return function.call(dict(zip(names, weights, strict=True)), *arguments)

        converted = jax2tf.convert(
            call,
            polymorphic_shapes=[None, *(f'({each.shape})' for each in function.arguments)],
            with_gradient=False,
            native_serialization_platforms=list(platforms),
        )
        signature = [
            tf.TensorSpec(
                [int(axis) if axis.isdecimal() else None for axis in each.shape.split(', ')],
                each.dtype,
                each.name,
            )
            for each in function.arguments
        ]
        bound = functools.partial(_bound, converted, variables)
        setattr(
            module, function.name, tf.function(bound, input_signature=signature, autograph=False)
        )
    try:
        tf.saved_model.save(module, str(folder))
    except tf.errors.OpError as error:  # a full disk
        raise OSError(first_line(error)) from None


def _bound(converted: Any, variables: Sequence[Any], *arguments: Any) -> Any:
    return converted(list(variables), *arguments)

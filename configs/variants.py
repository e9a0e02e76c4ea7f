"""Variants of a recipe: `NAME` of the paper's recipe, or `NAME,BASE` of another's."""

from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from m2l_jax.configs import default, overfit, small
from m2l_jax.interface.errors import InputError

Change = Callable[[ConfigDict], None]

_BASES = {'default': default, 'small': small, 'overfit': overfit}


def vary(changes: Mapping[str, Change], argument: str) -> ConfigDict:
    """Makes the config that an argument names.

    Args:
      changes: from the names of variants to functions that change a config.
      argument: `NAME`, `NAME,BASE` or `NAME,BASE:ARGUMENT`, e.g. `base,small:20000`.

    Raises:
      InputError: for an unknown name, or an argument that the base refuses.
    """
    name, _, base = argument.partition(',')
    base, _, of_base = (base or 'default').partition(':')
    if name not in changes or base not in _BASES:
        raise InputError(
            f'{argument!r} is not one of {", ".join(changes)}, or one of these followed by '
            f',{" or ,".join(_BASES)}'
        )
    make = _BASES[base].get_config
    config = make(of_base) if of_base else make()
    changes[name](config)
    return config

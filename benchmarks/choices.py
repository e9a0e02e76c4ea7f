"""Flags of several values, checked."""

from collections.abc import Callable, Collection
from typing import TypeVar

from absl import flags

from m2l_jax.interface.errors import InputError

Number = TypeVar('Number', int, float)


def numbers(flag: flags.FlagHolder, kind: Callable[[str], Number]) -> list[Number]:
    """The values of a list flag, each above 0.

    Args:
      flag: of what was given, with commas between.
      kind: int or float.

    Raises:
      InputError: for a value that is none.
    """
    try:
        values = [kind(value) for value in flag.value]
    except ValueError:
        values = []
    if not values or not all(0 < value < float('inf') for value in values):
        whole = 'whole ' if kind is int else ''
        given = ','.join(flag.value)
        raise InputError(f'--{flag.name}={given!r} must be {whole}numbers above 0, commas between')
    return values


def words(flag: flags.FlagHolder, known: Collection[str]) -> list[str]:
    """The values of a list flag, of which each is known.

    Raises:
      InputError: for a value that is not, or none at all.
    """
    unknown = [value for value in flag.value if value not in known]
    if unknown or not flag.value:
        given = ','.join(flag.value)
        raise InputError(f'--{flag.name}={given!r} must be of {", ".join(known)}, commas between')
    return list(flag.value)


def precisions(flag: flags.FlagHolder) -> list[str]:
    """The values of `--dtypes`; see `words`."""
    return words(flag, ('float32', 'bfloat16'))

"""Flags that several benchmarks share, and checks of their values."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from absl import flags

from benchmarks import small_model
from benchmarks.units import Units
from m2l_jax.interface import command
from m2l_jax.interface.errors import InputError
from m2l_jax.model.config import ModelConfig

Number = TypeVar('Number', int, float)

_PREPARING = 2 / 3  # of the time; the rest is for turns
# Each takes a minute and more to compile.
_ON_A_GPU = (
    'eager autocast',
    'compiled autocast tuned',
    'compiled channels last autocast tuned',
)
_CONFIGS = {'full': ModelConfig(), 'small': small_model.CONFIG}


def define_device() -> flags.FlagHolder:
    """Defines `--device=cpu` or `cuda`."""
    return flags.DEFINE_enum('device', 'cpu', ['cpu', 'cuda'], 'Of both sides.')


def define_size() -> flags.FlagHolder:
    """Defines `--model=full` or `small`."""
    return flags.DEFINE_enum(
        'model', 'full', list(_CONFIGS), "The released model's size, or a tiny one."
    )


def model_config(size: str) -> ModelConfig:
    """The config of `full` or `small`."""
    return _CONFIGS[size]


def define_dtypes() -> flags.FlagHolder:
    """Defines `--dtypes`, to be read with `dtypes`."""
    return flags.DEFINE_list(
        'dtypes',
        ['float32', 'bfloat16'],
        "Of this project; bfloat16's peer is the package with autocast.",
    )


def define_side_by_side() -> flags.FlagHolder:
    """Defines `--side_by_side`."""
    return flags.DEFINE_integer(
        'side_by_side',
        None,
        "Processes that compile at once; they share a GPU's memory. 3 by default on a GPU, 1 on a "
        'CPU.',
        lower_bound=1,
    )


def define_minutes(of: str) -> flags.FlagHolder:
    """Defines `--minutes` of something."""
    return command.define_finite_float(
        'minutes', None, f'Of {of}: what is not ready after two thirds is left out.'
    )


class Limits:
    """Defines `--side_by_side`, `--minutes` and `--budget`."""

    def __init__(self):
        self._side_by_side, self._minutes = define_side_by_side(), define_minutes('all')
        self._budget = flags.DEFINE_float(
            'budget', 600, 'Seconds, with compiling, after which a trial run is given up.'
        )
        self._begin = time.monotonic()

    def units(self, device: str, left: int = 1) -> Units:
        """Makes processes ready in time, where `left` more contests share the minutes."""
        now, deadline = time.monotonic(), math.inf
        if self._minutes.value is not None:
            end = self._begin + 60 * self._minutes.value
            deadline = now + _PREPARING * (end - now) / left
        side_by_side = self._side_by_side.value or (3 if device == 'cuda' else 1)
        return Units(side_by_side, self._budget.value, deadline)


def numbers(flag: flags.FlagHolder, kind: Callable[[str], Number]) -> list[Number]:
    """The values of a list flag as int or float.

    Raises:
      InputError: if there is none, or one is not a number above 0.
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
    """The values of a list flag.

    Raises:
      InputError: if there is none, or one is unknown.
    """
    unknown = [value for value in flag.value if value not in known]
    if unknown or not flag.value:
        given = ','.join(flag.value)
        raise InputError(f'--{flag.name}={given!r} must be of {", ".join(known)}, commas between')
    return list(flag.value)


def dtypes(flag: flags.FlagHolder) -> list[str]:
    """The values of `--dtypes`; see `words`."""
    return words(flag, ('float32', 'bfloat16'))


@dataclasses.dataclass(frozen=True)
class Style:
    """A way to run the PyTorch package's network.

    Attributes:
      compiled: use `torch.compile` for the exact shapes.
      channels_last: keep weights, and so activations, channels last.
      autocast: use mixed precision: bfloat16, but float16 in the package's codec on a GPU, by its
        own choice.
      tuned: let cuDNN try its algorithms, and use TensorFloat-32 in products of float32 matrices,
        as convolutions do anyway.
    """

    compiled: bool = False
    channels_last: bool = False
    autocast: bool = False
    tuned: bool = False

    @property
    def name(self) -> str:
        """The name in flags and tables."""
        words = ['compiled' if self.compiled else 'eager']
        words += ['channels last'] if self.channels_last else []
        words += ['autocast'] if self.autocast else []
        words += ['tuned'] if self.tuned else []
        return ' '.join(words)


def define_styles() -> flags.FlagHolder:
    """Defines `--styles`, to be read with `chosen_styles`."""
    return flags.DEFINE_list(
        'styles',
        None,
        'Of the package, to be tried: eager, "compiled channels last", "eager autocast", …; on a '
        'GPU also "compiled autocast tuned", …; by default all on a CPU, and three on a GPU.',
    )


def default_style(dtype: str) -> Style:
    """The style of a dtype of ours that the package's user gets."""
    return Style(autocast=dtype == 'bfloat16')


def chosen_styles(names: Sequence[str] | None, device: str) -> list[Style]:
    """The named styles, or those of a 'cpu' or 'cuda' device, uncompiled ones first.

    Raises:
      InputError: for an unknown name.
    """
    every = [Style(*values) for values in itertools.product((False, True), repeat=4)]
    known = {style.name: style for style in every if device == 'cuda' or not style.tuned}
    for name in names or ():
        if name not in known:
            raise InputError(f'--styles has {name!r}: on {device} there are {", ".join(known)}')
    return [known[name] for name in names or (_ON_A_GPU if device == 'cuda' else known)]


def styles_of(styles: Sequence[Style], dtype: str) -> list[Style]:
    """Those that compare with a dtype of ours, and its default style, which comes first."""
    default = default_style(dtype)
    return list(
        dict.fromkeys([default, *(each for each in styles if each.autocast == default.autocast)])
    )

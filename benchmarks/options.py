"""Flags that several benchmarks share, and checks of their values."""

import dataclasses
import itertools
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from absl import flags

from benchmarks import small_model
from m2l_jax.interface.errors import InputError
from m2l_jax.model.config import ModelConfig

Number = TypeVar('Number', int, float)

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
    return flags.DEFINE_list('dtypes', ['float32'], 'Of this project: float32, bfloat16.')


def define_budget() -> flags.FlagHolder:
    """Defines `--budget`."""
    return flags.DEFINE_float(
        'budget', 600, 'Seconds, with compiling, after which a trial run is given up.'
    )


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
      autocast: use mixed precision on a GPU: float16 in the package's codec, by its own choice,
        and bfloat16 in training.
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
        'Of the package, to be tried: eager, "compiled channels last", …; on a GPU "eager '
        'autocast", "compiled autocast tuned", …; all by default.',
    )


def default_style(device: str) -> Style:
    """The style that a user of the package gets on a 'cpu' or 'cuda' device."""
    return Style(autocast=device == 'cuda')


def chosen_styles(names: Sequence[str] | None, device: str) -> list[Style]:
    """The named styles, or all of a 'cpu' or 'cuda' device, uncompiled ones first.

    Raises:
      InputError: for an unknown name.
    """
    either = (False, True)
    if device == 'cuda':
        tuned = [Style(*values, tuned=True) for values in itertools.product(either, repeat=3)]
        every = [default_style(device), *tuned]
    else:
        every = [Style(*values) for values in itertools.product(either, repeat=2)]
    known = {style.name: style for style in every}
    for name in names or ():
        if name not in known:
            raise InputError(f'--styles has {name!r}: on {device} there are {", ".join(known)}')
    return [known[name] for name in names] if names else every

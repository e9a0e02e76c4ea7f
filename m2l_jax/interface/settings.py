"""Typed, frozen settings from the mappings of configs and checkpoints."""

import dataclasses
import difflib
import logging
import typing
from collections.abc import Collection, Mapping, MutableMapping
from typing import Any, TypeVar

from m2l_jax.interface.errors import InputError

LARGEST_SEED = (1 << 32) - 1  # the bits that JAX's keys take

Settings = TypeVar('Settings')

_logger = logging.getLogger(__name__)


def check_seeds(seed: int, seeds: int) -> None:
    """Refuses seeds from `seed` on of which the last is larger than JAX's keys take."""
    last = seed + seeds - 1
    if last > LARGEST_SEED:
        raise InputError(
            f'--seed={seed} --seeds={seeds}: the last seed, {last}, is above {LARGEST_SEED}: '
            'choose a smaller --seed'
        )


def build(cls: type[Settings], mapping: Mapping[str, Any], where: str = 'config') -> Settings:
    """Builds the dataclass `cls` from a ConfigDict, dict or parsed JSON, checking every field.

    Args:
      cls: a frozen dataclass of numbers, strings, booleans, tuples and such dataclasses. A field
        `Annotated[Base, CHOICES]` takes the class in `CHOICES` of its `name`, by default the first.
      mapping: field names to values; lists become tuples, and whole numbers floats.
      where: the mapping's name in error messages, e.g. `config.model`.

    Raises:
      InputError: for an unknown, missing or ill-typed field, naming it.
    """
    types = typing.get_type_hints(cls, include_extras=True)
    _check_names(mapping, types, where)
    values = {}
    for field in dataclasses.fields(cls):
        if field.name in mapping:
            path = f'{where}.{field.name}'
            values[field.name] = _convert(types[field.name], mapping[field.name], path)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InputError(f'{where}.{field.name} is missing: add it')
    return cls(**values)


def fit_to_choices(
    cls: type, config: MutableMapping[str, Any], given: Collection[str], where: str = 'config'
) -> None:
    """Removes fields that a choice lacks, where its name is given and they are not.

    Args:
      cls: the dataclass that the config is for; see `build`.
      config: changed in place.
      given: the fields that override the config's, e.g. `config.optimizer.name`.
      where: the config's name in `given` and in error messages.

    Raises:
      InputError: for an unknown field, or one of another choice, naming it.
    """
    types = typing.get_type_hints(cls, include_extras=True)
    _check_names(config, types, where)
    for name, kind in types.items():
        section, path = config.get(name), f'{where}.{name}'
        if not hasattr(section, 'items'):
            continue
        kind, foreign = _choose(kind, section, path)
        for field, error in foreign.items():
            if f'{path}.name' not in given or f'{path}.{field}' in given:
                raise InputError(error)
            del section[field]
        if foreign:
            _logger.info(
                '%s.name=%s has no %s: left out', path, section['name'], ', '.join(foreign)
            )
        fit_to_choices(kind, section, given, path)


def differences(old: Any, new: Any, where: str = 'config') -> list[str]:
    """The fields in which two settings differ, as `path: old -> new`.

    Both are of one dataclass, or mappings of names to values, where a missing one is None.
    """
    if dataclasses.is_dataclass(old):
        old, new = (
            {field.name: getattr(each, field.name) for field in dataclasses.fields(each)}
            for each in (old, new)
        )
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            line
            for name in dict.fromkeys((*old, *new))
            for line in differences(old.get(name), new.get(name), f'{where}.{name}')
        ]
    return [] if old == new else [f'{where}: {old!r} -> {new!r}']


def _check_names(mapping: Mapping[str, Any], types: Mapping[str, Any], where: str) -> None:
    for name in mapping:
        if name not in types:
            raise InputError(f'{where} has no field {name!r}{_nearest(name, types)}')


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    matches = difflib.get_close_matches(name, known, n=1)
    return f'; did you mean {matches[0]!r}?' if matches else f'; it has {", ".join(known)}'


def _choose(kind: Any, value: Any, where: str) -> tuple[Any, dict[str, str]]:
    """The class that the name in `value` chooses; errors by field, for those of other choices."""
    if typing.get_origin(kind) is not typing.Annotated:
        return kind, {}
    base, choices = typing.get_args(kind)
    if not hasattr(value, 'items'):
        return base, {}
    name = value.get('name', next(iter(choices)))
    if name not in choices:
        raise InputError(f'{where}.name={name!r} must be one of {", ".join(choices)}')
    fields = {each: typing.get_type_hints(cls) for each, cls in choices.items()}
    errors = {}
    for field in value:
        owners = [each for each in choices if field in fields[each]]
        if owners and name not in owners:
            errors[field] = (
                f'{where}.{field} is for {where}.name={" or ".join(owners)}, not for {name}: '
                f'choose that name, or leave {field} out'
            )
    return choices[name], errors


def _convert(kind: Any, value: Any, where: str) -> Any:
    if value is None:
        raise InputError(f'{where} is not set: pass --{where}=VALUE')
    kind, foreign = _choose(kind, value, where)
    for error in foreign.values():
        raise InputError(error)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping) and not hasattr(value, 'items'):
            raise InputError(f'{where} must hold named fields, not {value!r}')
        return build(kind, dict(value.items()), where)
    if typing.get_origin(kind) is tuple:
        return _convert_tuple(kind, value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f'{where} must be of type {kind.__name__}, not {value!r}')
    return value


def _convert_tuple(kind: Any, value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, tuple | list):
        raise InputError(f'{where} must be a tuple, not {value!r}')
    items = typing.get_args(kind)
    if items[-1] is Ellipsis:
        items = items[:1] * len(value)
    if len(items) != len(value):
        raise InputError(f'{where} must have {len(items)} entries, not {len(value)}')
    return tuple(
        _convert(item, entry, f'{where}[{place}]')
        for place, (item, entry) in enumerate(zip(items, value, strict=True))
    )

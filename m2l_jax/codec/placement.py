"""The devices that a codec computes on: chosen by a user, and found again in another process."""

from collections.abc import Sequence
from typing import Any

import jax

from m2l_jax.interface.errors import InputError

Names = Sequence[tuple[str, int]]  # platform and number


def choose_devices(
    device: Any, devices: Sequence[jax.Device] | None
) -> tuple[jax.Device, ...] | None:
    """The devices to share rows out among, or None for JAX's default one.

    Args:
      device: one of JAX's, or a name: 'cpu', 'cuda:1', what `torch.device` prints.
      devices: several of JAX's, in place of it.

    Raises:
      InputError: for both at once, or what is no device here.
    """
    if device is not None and devices is not None:
        raise InputError('pass either device or devices')
    if device is not None:
        return (device if isinstance(device, jax.Device) else _named(str(device)),)
    if devices is None:
        return None
    chosen = tuple(devices) if isinstance(devices, Sequence) else ()
    if not chosen or not all(isinstance(each, jax.Device) for each in chosen):
        raise InputError(f"devices={devices!r} must be a list of JAX's: jax.local_devices()")
    if len({*chosen}) < len(chosen):
        raise InputError(f'devices={devices!r} names a device twice')
    return chosen


def names_of(devices: Sequence[jax.Device] | None) -> Names | None:
    """Names that mean the same devices in another process of this machine."""
    return None if devices is None else [(each.platform, each.id) for each in devices]


def find_devices(names: Names | None) -> tuple[jax.Device, ...] | None:
    """The devices of these names; None, JAX's default one, where this process lacks any."""
    found = {
        (each.platform, each.id): each
        for platform in {platform for platform, _ in names or ()}
        for each in _of_platform(platform)
    }
    return tuple(found[name] for name in names) if names and found.keys() >= {*names} else None


def _named(name: str) -> jax.Device:
    platform, _, number = name.partition(':')
    found = _of_platform(platform)
    if not (number or '0').isdecimal() or int(number or 0) >= len(found):
        there = ', '.join(f'{each.platform}:{n}' for n, each in enumerate(jax.local_devices()))
        raise InputError(f'device={name!r} is not there: JAX has {there} in this process')
    return found[int(number or 0)]


def _of_platform(platform: str) -> list[jax.Device]:
    try:
        return jax.local_devices(backend=platform)
    except RuntimeError:  # JAX knows none
        return []

"""The devices that a codec computes on, and XLA's options for them."""

import functools
from collections.abc import Sequence
from typing import Any

import jax

from m2l_jax.interface.errors import InputError

_SAVE_MEMORY = {'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'}


def choose_devices(
    device: Any, devices: Sequence[jax.Device] | None
) -> tuple[jax.Device, ...] | None:
    """The devices to share rows among, or None for JAX's default one.

    Args:
      device: one of JAX's, or a name as `torch.device` prints it: 'cpu', 'cuda:1'.
      devices: several of JAX's, in place of it.

    Raises:
      InputError: for both at once, or a device that is not here.
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


def find_devices(names: Sequence[tuple[str, int]] | None) -> tuple[jax.Device, ...] | None:
    """The devices of these platforms and ids; None if there are no names or any is missing here."""
    names = names or ()
    found = [each for platform, id in names for each in _local(platform) if each.id == id]
    return tuple(found) if found and len(found) == len(names) else None


@functools.cache
def inference_options(platform: str) -> dict[str, str]:
    """XLA's options for encoding and decoding on a platform such as 'cpu'.

    By default XLA reserves a CPU's memory long before its use. This order needs a quarter less for
    encoding and a third less for decoding, and decodes a tenth faster.
    """
    if platform != 'cpu':
        return {}
    try:
        jax.jit(lambda: 0, compiler_options=_SAVE_MEMORY).lower().compile()
    except jax.errors.JaxRuntimeError:  # JAX doesn't document the option: a version may lack it
        return {}
    return _SAVE_MEMORY


def _named(name: str) -> jax.Device:
    platform, _, number = name.partition(':')
    found = _local(platform)
    if not (number or '0').isdecimal() or int(number or 0) >= len(found):
        there = ', '.join(f'{each.platform}:{n}' for n, each in enumerate(jax.local_devices()))
        raise InputError(f'device={name!r} is not there: JAX has {there} in this process')
    return found[int(number or 0)]


def _local(platform: str) -> list[jax.Device]:
    try:
        return jax.local_devices(backend=platform)
    except RuntimeError:  # JAX knows none
        return []

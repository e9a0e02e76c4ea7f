"""Mixes the channels of audio before it is encoded, and undoes it.

The modes: 'each' channel is encoded by itself; so are 'mono', their mean, and mid and side of
'mid_side', half the sum and half the difference of left and right. In 'joint' a stereo model
encodes both channels at once.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from m2l_jax.audio.planes import describe_surplus
from m2l_jax.interface.errors import InputError

# Latent sequences that a mode may give; mono audio has no side.
SEQUENCES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {'mono': (1,), 'mid_side': (1, 2), 'joint': (1,)}
)


def modes(stereo: bool) -> tuple[str, ...]:
    """Returns the modes of a stereo or a mono model, the default first."""
    return ('joint', 'mono') if stereo else ('each', 'mono', 'mid_side')


def choose_mode(mode: str | None, stereo: bool) -> str:
    """Returns the mode, or the model's default for None.

    Raises:
      InputError: for a mode of other models.
    """
    known = modes(stereo)
    if mode not in (None, *known):
        encodes = 'a stereo model encodes both channels' if stereo else 'a mono model one channel'
        raise InputError(f'--channels={mode}: {encodes} at once: take {" or ".join(known)}')
    return mode or known[0]


def mixed_channels(channels: int, mode: str) -> int:
    """Returns the number of channels that `mix` makes of `channels`.

    Raises:
      InputError: for mid/side, or a stereo model's input, of more than two.
    """
    if mode == 'joint' and (surplus := describe_surplus(channels)):
        raise InputError(f'it {surplus}')
    if mode == 'mid_side' and channels > 2:
        raise InputError(f'{channels} channels have no mid and side: take --channels=each or mono')
    return 1 if mode == 'mono' else channels


def mix(waveform: np.ndarray, mode: str) -> np.ndarray:
    """Mixes `[channels, samples]` for encoding; mono has mid alone."""
    with np.errstate(over='ignore'):  # an overflow shows in the latents, which are not finite
        if mode == 'mono':
            return waveform.mean(axis=0, keepdims=True)
        if mode == 'mid_side' and len(waveform) == 2:
            left, right = waveform
            return np.stack([(left + right) / 2, (left - right) / 2])
    return waveform


def unmix(waveform: np.ndarray, mode: str) -> np.ndarray:
    """Inverts `mix`, except for 'mono', of which only the mean is known."""
    if mode == 'mid_side' and len(waveform) == 2:
        middle, side = waveform
        return np.stack([middle + side, middle - side])
    return waveform

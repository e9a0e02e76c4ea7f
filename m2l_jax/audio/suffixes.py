"""Suffixes of the audio files that are read, and of those that are left out."""

import collections
import dataclasses
from collections.abc import Iterable

import soundfile

from m2l_jax.interface.errors import InputError

AUDIO_SUFFIXES = frozenset(
    f'.{name.lower()}'
    for name in (
        *soundfile.available_formats(),
        *('aif', 'aifc', 'bwf', 'mp2', 'mpga', 'oga', 'opus', 'snd', 'wave'),
    )
) - {'.raw'}  # without a header, rate and format are unknown

UNREAD_SUFFIXES = (
    frozenset(
        f'.{name}'
        for name in (
            *('3ga', '3gp', 'aa', 'aa3', 'aac', 'aax', 'ac3', 'adts', 'amr', 'ape', 'asf', 'at3'),
            *('awb', 'dff', 'dsf', 'dts', 'dtshd', 'eac3', 'ec3', 'gsm', 'm4a', 'm4b', 'm4p'),
            *('m4r', 'mka', 'mlp', 'mp4', 'mpc', 'ofr', 'oma', 'opus', 'pcm', 'qcp', 'ra', 'raw'),
            *('rm', 'shn', 'spx', 'tak', 'thd', 'tta', 'weba', 'webm', 'wma', 'wv'),
        )
    )
    - AUDIO_SUFFIXES
)

_MOST_NAMES = 1000
FFMPEG = 'as by `ffmpeg -i X X.flac`'


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """Audio files that are left out for their suffixes.

    Attributes:
      files: their number.
      suffixes: files of each suffix.
      names: of the first thousand, sorted.
    """

    files: int = 0
    suffixes: dict[str, int] = dataclasses.field(default_factory=dict)
    names: list[str] = dataclasses.field(default_factory=list)

    def describe(self, remedy: str = FFMPEG) -> str:
        """One line that names the formats and how to convert them; '' without files."""
        if not self.files:
            return ''
        kinds = ', '.join(f'{count} {suffix}' for suffix, count in self.suffixes.items())
        return (
            f'files left out, whose formats are not read: {kinds} '
            f'({self.names[0]} first); convert each, {remedy}'
        )


NONE_LEFT_OUT = LeftOut()


def left_out(names: Iterable[str]) -> LeftOut:
    """Counts the files of these names."""
    names = sorted(names)
    counts = collections.Counter(f'.{name.rpartition(".")[2].lower()}' for name in names)
    return LeftOut(len(names), dict(sorted(counts.items())), names[:_MOST_NAMES])


def no_audio(inputs: str, not_read: LeftOut, name: str) -> InputError:
    """Makes the error for `inputs`, the value of the flag or field `name`, without audio."""
    kinds = ', '.join(sorted({'.wav', '.flac', '.ogg', '.mp3'} & AUDIO_SUFFIXES))
    unread_too = f' ({not_read.describe()})' if not_read.files else ''
    return InputError(
        f'no audio files in {inputs}{unread_too}: put some there ({kinds}, …) or correct {name}'
    )

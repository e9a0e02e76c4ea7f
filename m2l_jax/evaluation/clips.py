"""Clips of audio on which models are measured."""

import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from m2l_jax.audio import files
from m2l_jax.audio.levels import Levels, check_loudness
from m2l_jax.audio.planes import as_stereo, describe_surplus
from m2l_jax.audio.suffixes import LeftOut
from m2l_jax.data.tfds import AudioRecords, is_dataset
from m2l_jax.evaluation import metrics
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.listing import split_inputs

_LEAST_RMS = 1e-3  # of a clip that is not silent
_LONGEST_STEM = 150  # bytes: file systems take names of 255, and endings follow
_CROPS = 16  # for the figures by noise level, over all clips


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip to measure: `waveform` is `[channels, samples]`, float32, at the model's rate."""

    name: str
    waveform: np.ndarray


def read_sound(
    path: str | os.PathLike[str],
    sample_rate: int,
    samples: int | None = None,
    levels: Levels | None = None,
) -> np.ndarray:
    """Reads a file, or its first `samples`, as `files.read` does.

    Raises:
      InputError: for a file that cannot be read, is not finite, or is absurdly loud.
    """
    waveform = files.read(path, sample_rate, 0, samples, levels)
    files.check_finite(waveform, path)
    check_loudness(waveform, path)
    return waveform


def is_silent(waveform: np.ndarray) -> bool:
    """True below an RMS of 0.001, where figures mean nothing."""
    return bool(np.sqrt(np.mean(waveform**2)) < _LEAST_RMS)


def cut_clips(
    paths: str, sample_rate: int, seconds: float, stereo: bool = False
) -> tuple[list[Clip], LeftOut, dict[str, str]]:
    """Cuts every file into pieces of one length, without the rest and silent pieces.

    Args:
      paths: a file, folder, pattern or list, see `find_files`, or a TFDS dataset of audio, a folder
        or `tfds:NAME[SPLIT]`; several with commas between.
      sample_rate: of the clips, in Hz.
      seconds: of each.
      stereo: for a stereo model, which takes no more than two channels.

    Returns:
      The clips, the files of formats that are not read, and the reason for each file without a
      clip.

    Raises:
      InputError: if pieces would be too short to measure, there are none, or a dataset cannot be
        opened.
    """
    samples = round(seconds * sample_rate)
    if samples < metrics.LEAST_SAMPLES:
        raise InputError(
            f'pieces of {seconds} s are too short to measure: '
            f'{metrics.LEAST_SAMPLES / sample_rate:.3f} at least'
        )
    sounds, left_out = _find_sounds(paths)
    clips, skipped = [], {}
    for index, (path, name, read) in enumerate(sounds):
        levels = Levels()
        try:
            waveform = read(sample_rate, levels=levels)
        except InputError as error:
            skipped[path] = str(error)
            continue
        too_loud, surplus = levels.too_loud(), stereo and describe_surplus(len(waveform))
        if too_loud or surplus:
            skipped[path] = f'{path} is {too_loud}' if too_loud else f'{path} {surplus}'
            continue
        # The index distinguishes files of the same name.
        stem = f'{index:02}_{name}'.encode()[:_LONGEST_STEM].decode(errors='ignore')
        pieces = [
            Clip(f'{stem}_{number:02}', waveform[:, number * samples : (number + 1) * samples])
            for number in range(waveform.shape[1] // samples)
        ]
        sounding = [piece for piece in pieces if not is_silent(piece.waveform)]
        clips += sounding
        if not sounding:
            length = waveform.shape[1] / sample_rate
            skipped[path] = (
                f'{path} has no {seconds:g} s that are not silent: it has {length:.3g} s'
            )
    if not clips:
        unread_too = f' ({left_out.describe()})' if left_out.files else ''
        reason = f': {next(iter(skipped.values()))}' if skipped else ''
        raise InputError(f'{paths} has nothing to evaluate{unread_too}{reason}')
    return clips, left_out, skipped


def _find_sounds(paths: str) -> tuple[list[tuple[str, str, Callable]], LeftOut]:
    """Lists path, short name and reader of each file and record, and the files left out."""
    parts = split_inputs(paths)
    datasets = [AudioRecords(part) for part in parts if is_dataset(part)]
    others = ','.join(part for part in parts if not is_dataset(part))
    found, left_out = files.search(others) if others else ([], LeftOut())
    sounds = [
        (path, pathlib.Path(path).stem, functools.partial(read_sound, path)) for path in found
    ]
    for records in datasets:
        name = records.dataset.partition('/')[0]
        sounds += [
            (records.name(number), name, functools.partial(_read_record, records, number))
            for number in range(len(records))
        ]
    return sounds, left_out


def _read_record(
    records: AudioRecords, number: int, sample_rate: int, levels: Levels
) -> np.ndarray:
    waveform = records.read(number, sample_rate)
    levels.add(waveform.T)
    check_loudness(waveform, records.name(number))
    return waveform


def cut_crops(clips: Sequence[Clip], samples: int, stereo: bool = False) -> np.ndarray:
    """Cuts `[16, samples]`, float32, evenly spaced over all clips, from their channels in turn.

    For `stereo`, they are `[16, 2, samples]` of both channels, mono twice.
    """
    crops = []
    for number in range(_CROPS):
        fraction, clip = math.modf((number + 0.5) * len(clips) / _CROPS)
        waveform = clips[int(clip)].waveform
        start = round(fraction * (waveform.shape[1] - samples))
        crop = waveform[:, start : start + samples]
        crops.append(as_stereo(crop) if stereo else crop[number % len(crop)])
    return np.stack(crops)

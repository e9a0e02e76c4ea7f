"""Files of a report: CSV, sounds and pictures, and the page to listen with."""

import csv
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from m2l_jax.audio import files as audio
from m2l_jax.evaluation import metrics
from m2l_jax.evaluation.clips import Clip
from m2l_jax.evaluation.listening.figures import Figures
from m2l_jax.evaluation.listening.page import is_playable, write_page
from m2l_jax.evaluation.listening.stimuli import Comparison
from m2l_jax.evaluation.listening.webmushra import file_name, write_webmushra
from m2l_jax.evaluation.reconstruction import Reconstruction
from m2l_jax.evaluation.reporting.table import distance_rows
from m2l_jax.interface.paths import replaced_file, write_json

_logger = logging.getLogger(__name__)


def write_files(
    folder: pathlib.Path,
    report: Mapping[str, Any],
    clips: Sequence[Clip],
    sounds: Mapping[str, Sequence[np.ndarray]],
    rate: int,
    webmushra: bool,
) -> None:
    """Writes all files of a report, as `quality.evaluate` says.

    Args:
      folder: is there.
      report: of `quality.evaluate`.
      clips: all that were measured.
      sounds: reconstructions of the first clips, by model, the report's `checkpoint` among them.
      rate: of clips and sounds, in Hz.
      webmushra: see there.

    Raises:
      InputError: if a file cannot be written.
    """
    figures = {name: system['clips'] for name, system in report['systems'].items()}
    _write_csv(folder / 'clips.csv', figures, list(report['metrics']))
    for clip, waveform in zip(clips, sounds[report['checkpoint']], strict=False):
        measured = metrics.measure(clip.waveform, waveform, rate)
        Reconstruction(clip, waveform, rate, measured).write(folder)
    taken = {'original'}
    for name in [each for each in sounds if each != report['checkpoint']]:
        ending = file_name(pathlib.PurePath(name).name, taken)
        for clip, waveform in zip(clips, sounds[name], strict=False):
            audio.write(folder / f'{clip.name}.{ending}.wav', waveform, rate)
    _write_listening(folder, clips, sounds, rate, figures, distance_rows(report), webmushra)
    write_json(folder / 'report.json', report)  # last: with it all is there


def _write_listening(
    folder: pathlib.Path,
    clips: Sequence[Clip],
    sounds: Mapping[str, Sequence[np.ndarray]],
    rate: int,
    figures: Figures,
    distances: Sequence[Sequence[str]],
    webmushra: bool,
) -> None:
    """Writes the page, and the test for webMUSHRA if wanted, of the first clips' sounds."""
    made = list(zip(*sounds.values(), strict=True))  # by clip and model
    heard = [
        Comparison(clip.name, rate, clip.waveform, dict(zip(sounds, waveforms, strict=True)))
        for clip, waveforms in zip(clips, made, strict=False)
        if len(clip.waveform) <= 2
    ]
    if len(heard) < len(made):
        _logger.warning(
            '%d pieces of more than two channels are not on the page', len(made) - len(heard)
        )
    if not heard:
        return
    title = 'Reconstructions by ' + ', '.join(sounds)
    if is_playable(rate):
        write_page(folder, heard, figures, title, distances)
    else:
        _logger.warning('there is no page: browsers do not play %d Hz', rate)
    if webmushra:
        write_webmushra(folder / 'webmushra', heard, title)


def _write_csv(path: pathlib.Path, figures: Figures, names: Sequence[str]) -> None:
    """Writes a row for each piece and system, empty where a figure is not finite."""
    with replaced_file(path) as partial, open(partial, 'w', newline='', encoding='utf-8') as file:
        rows = csv.writer(file)
        rows.writerow(('clip', 'system', *names))
        for system, by_clip in figures.items():
            for clip, row in by_clip.items():
                values = (row[name] for name in names)
                rows.writerow((clip, system, *(v if np.isfinite(v) else '' for v in values)))

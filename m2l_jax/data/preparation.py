"""A TFDS dataset out of audio files: planned, written shard by shard, resumed, reported.

In the output folder, beside what TFDS reads: `preparation.json` (the settings and the input, which
a rerun must match), `shards/` (a summary of each complete shard) and `report.json`.
"""

import dataclasses
import json
import logging
import os
import pathlib
import shutil
from collections.abc import Sequence

from m2l_jax.audio.pcm import FULL_SCALE
from m2l_jax.audio.suffixes import LeftOut
from m2l_jax.data import runners
from m2l_jax.data.inputs import AudioFile, list_audio
from m2l_jax.data.report import Report, make_report
from m2l_jax.data.segments import PREPARATION, SegmentConfig, plan_shards
from m2l_jax.data.shards import ShardJob, read_summary
from m2l_jax.data.tfds import INFO, segment_format
from m2l_jax.interface import settings
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.json_files import to_json, write_json
from m2l_jax.interface.paths import create_file, locked, make_folder, remove_leftovers

_logger = logging.getLogger(__name__)

_SUMMARIES = 'shards'
_REPORT = 'report.json'


def prepare(
    inputs: str,
    output: str | os.PathLike[str],
    config: SegmentConfig,
    workers: int = 1,
    beam_options: str | None = None,
) -> Report:
    """Writes the dataset, or what is missing of it.

    An interrupted run and its rerun give the same bytes as a run in one go.

    Args:
      inputs: see `list_audio`.
      output: folder for the dataset: new, empty, or of an earlier run.
      config: how audio is cut and stored.
      workers: processes, without Beam.
      beam_options: Beam's flags, to run there instead.

    Raises:
      InputError: if nothing can be used, the output is no place for it, it was begun with other
        settings or input, or another process is at work there.
    """
    if workers < 1:
        raise InputError(f'--workers={workers} must be at least 1')
    folder = pathlib.Path(output).absolute()  # workers may be elsewhere
    _check_folder(folder)
    files, left_out = list_audio(inputs, config.sample_rate, config.crop_samples)
    usable = [file for file in files if not file.problem]
    if not usable:
        raise _nothing_usable(inputs, files, files[0].problem)
    _claim(folder, config, files)
    jobs = _plan_jobs(folder, usable, config)
    with locked(folder / PREPARATION) as is_alone:
        if not is_alone:
            raise InputError(
                f'{folder} is being written by another process: wait for its end, or choose '
                'another --output'
            )
        missing = [job for job in jobs if read_summary(job) is None]
        if missing or not (folder / INFO).is_file():
            _reopen(folder)
            _run(jobs, missing, workers, beam_options)
            return _finish(folder, inputs, files, left_out, jobs, config)
    _logger.info('%s is complete already: nothing to do', folder)
    return make_report(files, left_out, [read_summary(job) for job in jobs], config)


def _check_folder(folder: pathlib.Path) -> None:
    """Refuses a place that cannot be written to, or holds what is not ours."""
    if not folder.exists():
        return
    make_folder(folder)
    names = {path.name for path in folder.iterdir() if path.suffix != '.partial'}
    if names and PREPARATION not in names:
        raise InputError(f'{folder} contains other files: choose a new or empty folder as --output')


def _claim(folder: pathlib.Path, config: SegmentConfig, files: Sequence[AudioFile]) -> None:
    """Notes settings and input in the folder, or compares with those of the earlier run there."""
    listed = [[file.source, file.bytes, _header(file)] for file in files]
    path = make_folder(folder) / PREPARATION
    content = {'settings': dataclasses.asdict(config), 'files': listed}
    if not path.exists() and create_file(path, to_json(content, indent=None) + '\n'):
        return
    try:
        earlier = json.loads(path.read_text())
        old_config = settings.build(SegmentConfig, earlier['settings'], 'settings')
        old, new = ({file[0]: file[1:] for file in table} for table in (earlier['files'], listed))
    except (OSError, ValueError, LookupError, TypeError):
        raise InputError(f'{path} is damaged: remove {folder} and begin again') from None
    changes = settings.differences(old_config, config, 'settings')
    changed = [name for name in sorted(old | new) if old.get(name) != new.get(name)]
    if changed:
        changes.append(f'input: {len(changed)} files added, removed or changed, {changed[0]} first')
    if changes:
        raise InputError(
            f'{folder} was begun otherwise ({"; ".join(changes)}): '
            'choose another --output, or run as before'
        )


def _reopen(folder: pathlib.Path) -> None:
    """Removes what tells of a complete dataset, and what a killed run had not finished."""
    (folder / INFO).unlink(missing_ok=True)
    (folder / _REPORT).unlink(missing_ok=True)
    remove_leftovers(folder, deep=True)


def _finish(
    folder: pathlib.Path,
    inputs: str,
    files: Sequence[AudioFile],
    left_out: LeftOut,
    jobs: Sequence[ShardJob],
    config: SegmentConfig,
) -> Report:
    """Writes the report and, last, what makes the shards a dataset; see `prepare`."""
    summaries = [read_summary(job) for job in jobs]
    if None in summaries:
        raise InputError(
            f'{folder} lacks shards that were written: do all workers see this folder?'
        )
    report = make_report(files, left_out, summaries, config)
    for reason in (report.skipped | report.damaged).values():
        _logger.warning('skipping %s', reason)
    for source, reason in report.warnings.items():
        _logger.warning('%s: %s', source, reason)
    if not report.segments:
        _discard(folder, jobs)
        raise _nothing_usable(inputs, files, next(iter(report.skipped.values())))
    write_json(folder / _REPORT, dataclasses.asdict(report))
    segment_format().write_metadata(
        folder, [summary.segments for summary in summaries], report.bytes, _describe(config)
    )
    return report


def _header(file: AudioFile) -> list[int] | None:
    info = file.info
    return None if info is None else [info.sample_rate, info.channels, info.samples]


def _plan_jobs(
    folder: pathlib.Path, usable: Sequence[AudioFile], config: SegmentConfig
) -> list[ShardJob]:
    shards = plan_shards(usable, config)
    return [
        ShardJob(
            str(segment_format().shard_path(folder, number, len(shards))),
            str(folder / _SUMMARIES / f'{number:05d}.json'),
            pieces,
            config,
        )
        for number, pieces in enumerate(shards)
    ]


def _run(
    jobs: Sequence[ShardJob], missing: Sequence[ShardJob], workers: int, beam_options: str | None
) -> None:
    if len(missing) < len(jobs):
        _logger.info('%d of %d shards are there already', len(jobs) - len(missing), len(jobs))
    if beam_options is None:
        runners.run_local(missing, workers)
    else:
        runners.run_beam(missing, beam_options)


def _describe(config: SegmentConfig) -> str:
    """The dataset's own description."""
    return (
        f'Segments of {config.segment_samples} samples at {config.sample_rate} Hz, one channel '
        f'each, for crops of {config.crop_samples} samples: consecutive segments of a file overlap '
        f'by {config.crop_samples - 1}, so that every crop lies in exactly one. A waveform of full '
        f'scale 1 is audio / {FULL_SCALE}.'
    )


def _discard(folder: pathlib.Path, jobs: Sequence[ShardJob]) -> None:
    """Removes what a run without a result has left, and the folder if nothing else is in it."""
    for job in jobs:
        pathlib.Path(job.path).unlink(missing_ok=True)
    shutil.rmtree(folder / _SUMMARIES, ignore_errors=True)
    (folder / PREPARATION).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _nothing_usable(inputs: str, files: Sequence[AudioFile], reason: str) -> InputError:
    return InputError(f'none of the {len(files)} audio files in {inputs} can be used: {reason}')

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
import sys
import time
from collections.abc import Sequence

import tqdm

from m2l_jax.data import runners, tfds_audio
from m2l_jax.data.inputs import AudioFile, list_audio
from m2l_jax.data.segments import SegmentConfig, plan_shards
from m2l_jax.data.shards import ShardJob, ShardSummary, read_summary
from m2l_jax.interface import settings
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import make_folder, replaced_file

_logger = logging.getLogger(__name__)

_PREPARATION = 'preparation.json'
_SUMMARIES = 'shards'
_SECONDS_BETWEEN_LINES = 30


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of the input; `report.json` has the same fields.

    Attributes:
      files: audio files listed.
      hours_in: their duration, where their headers can be read.
      segments: records in the dataset.
      hours_out: duration of the records: each channel counts, and so does the overlap.
      silent_segments: left out.
      shards: of the dataset.
      bytes: of the shards.
      skipped: source to reason, of files of which nothing was taken.
      damaged: source to reason, of files of which a part was taken.
    """

    files: int
    hours_in: float
    segments: int
    hours_out: float
    silent_segments: int
    shards: int
    bytes: int
    skipped: dict[str, str]
    damaged: dict[str, str]

    def describe(self) -> str:
        """Two lines for people."""
        return (
            f'{self.files} files, {self.hours_in:.2f} h -> {self.segments} segments, '
            f'{self.hours_out:.2f} h over all channels, in {self.shards} shards, '
            f'{self.bytes / 1e6:.1f} MB\n'
            f'{self.silent_segments} silent segments left out; {len(self.skipped)} files skipped, '
            f'{len(self.damaged)} damaged (report.json)'
        )


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
      InputError: if nothing can be used, the output is no place for it, or it was begun with
        other settings or input.
    """
    if workers < 1:
        raise InputError(f'--workers={workers} must be at least 1')
    folder = pathlib.Path(output).absolute()  # workers may be elsewhere
    _check_folder(folder)
    files = list_audio(inputs, config.sample_rate, config.crop_samples)
    usable = [file for file in files if not file.problem]
    if not usable:
        raise _nothing_usable(inputs, files, files[0].problem)
    _claim(folder, config, files)
    jobs = _plan_jobs(folder, usable, config)
    missing = [job for job in jobs if read_summary(job) is None]
    if not missing and tfds_audio.has_metadata(folder):
        _logger.info('%s is complete already: nothing to do', folder)
        return _report(files, [read_summary(job) for job in jobs], config)
    tfds_audio.remove_metadata(folder)
    _remove_leftovers(folder)
    _run(jobs, missing, workers, beam_options)
    summaries = [read_summary(job) for job in jobs]
    if None in summaries:
        raise InputError(
            f'{folder} lacks shards that were written: do all workers see this folder?'
        )
    report = _report(files, summaries, config)
    for reason in (report.skipped | report.damaged).values():
        _logger.warning('skipping %s', reason)
    if not report.segments:
        _discard(folder, jobs)
        raise _nothing_usable(inputs, files, next(iter(report.skipped.values())))
    with replaced_file(folder / 'report.json') as partial:
        partial.write_text(json.dumps(dataclasses.asdict(report), indent=2) + '\n')
    tfds_audio.write_metadata(
        folder, [summary.segments for summary in summaries], report.bytes, _describe(config)
    )
    return report


def _check_folder(folder: pathlib.Path) -> None:
    """Refuses a place that cannot be written to, or holds what is not ours."""
    if not folder.exists():
        return
    make_folder(folder)
    names = {path.name for path in folder.iterdir() if path.suffix != '.partial'}
    if names and _PREPARATION not in names:
        raise InputError(f'{folder} contains other files: choose a new or empty folder as --output')


def _claim(folder: pathlib.Path, config: SegmentConfig, files: Sequence[AudioFile]) -> None:
    """Notes settings and input in the folder, or compares with those of the earlier run there."""
    listed = [[file.source, file.bytes, _header(file)] for file in files]
    path = folder / _PREPARATION
    if not path.exists():
        make_folder(folder)
        with replaced_file(path) as partial:
            content = {'settings': dataclasses.asdict(config), 'files': listed}
            partial.write_text(json.dumps(content) + '\n')
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


def _remove_leftovers(folder: pathlib.Path) -> None:
    """Removes what a run that was killed had not finished."""
    for pattern in ('.*.partial', f'{_SUMMARIES}/.*.partial'):
        for leftover in folder.glob(pattern):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def _header(file: AudioFile) -> list[int] | None:
    info = file.info
    return None if info is None else [info.sample_rate, info.channels, info.samples]


def _plan_jobs(
    folder: pathlib.Path, usable: Sequence[AudioFile], config: SegmentConfig
) -> list[ShardJob]:
    shards = plan_shards(usable, config)
    return [
        ShardJob(
            str(tfds_audio.shard_path(folder, number, len(shards))),
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
    if beam_options is not None:
        runners.run_beam(missing, beam_options)
        return
    progress = _Progress(missing)
    try:
        runners.run_local(missing, workers, progress.after_shard)
    finally:
        progress.close()


class _Progress:
    """On a terminal a bar, elsewhere a line now and then."""

    def __init__(self, jobs: Sequence[ShardJob]):
        self._total = sum(map(_hours, jobs))
        self._hours = 0.0
        self._line_time = time.monotonic()
        self._bar = tqdm.tqdm(
            total=len(jobs), unit='shard', dynamic_ncols=True, disable=not sys.stderr.isatty()
        )

    def after_shard(self, job: ShardJob) -> None:
        self._hours += _hours(job)
        figures = f'{self._hours:.1f} of {self._total:.1f} h of audio'
        self._bar.set_postfix_str(figures)
        self._bar.update()
        now = time.monotonic()
        if self._bar.disable and now - self._line_time > _SECONDS_BETWEEN_LINES:
            self._line_time = now
            _logger.info('%s', figures)

    def close(self) -> None:
        self._bar.close()


def _hours(job: ShardJob) -> float:
    """Duration of the files' parts that a shard is made from."""
    segments = sum(piece.stop - piece.first for piece in job.pieces)
    return segments * job.config.hop / job.config.sample_rate / 3600


def _report(
    files: Sequence[AudioFile], summaries: Sequence[ShardSummary], config: SegmentConfig
) -> Report:
    used = {source for summary in summaries for source in summary.used}
    damaged: dict[str, str] = {}
    for source, reason in (pair for summary in summaries for pair in summary.damaged):
        damaged.setdefault(source, reason)
    skipped = {
        file.source: file.problem
        or damaged.get(file.source)
        or f'{file.info.path} is silent (RMS below {config.min_rms})'
        for file in files
        if file.source not in used
    }
    infos = [file.info for file in files if file.info is not None]
    return Report(
        files=len(files),
        hours_in=sum(info.samples / info.sample_rate for info in infos) / 3600,
        segments=sum(summary.segments for summary in summaries),
        hours_out=sum(summary.samples for summary in summaries) / config.sample_rate / 3600,
        silent_segments=sum(summary.silent for summary in summaries),
        shards=len(summaries),
        bytes=sum(summary.bytes for summary in summaries),
        skipped=skipped,
        damaged={source: reason for source, reason in damaged.items() if source in used},
    )


def _describe(config: SegmentConfig) -> str:
    """The dataset's own description."""
    return (
        f'Segments of {config.segment_samples} samples at {config.sample_rate} Hz, one channel '
        f'each, for crops of {config.crop_samples} samples: consecutive segments of a file overlap '
        f'by {config.crop_samples - 1}, so that every crop lies in exactly one. A waveform of full '
        f'scale 1 is audio / {tfds_audio.FULL_SCALE}.'
    )


def _discard(folder: pathlib.Path, jobs: Sequence[ShardJob]) -> None:
    """Removes what a run without a result has left, and the folder if nothing else is in it."""
    for job in jobs:
        pathlib.Path(job.path).unlink(missing_ok=True)
    shutil.rmtree(folder / _SUMMARIES, ignore_errors=True)
    (folder / _PREPARATION).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _nothing_usable(inputs: str, files: Sequence[AudioFile], reason: str) -> InputError:
    return InputError(f'none of the {len(files)} audio files in {inputs} can be used: {reason}')

"""What became of the audio files that a dataset was prepared from."""

import dataclasses
from collections.abc import Iterable, Sequence

from m2l_jax.audio.suffixes import LeftOut
from m2l_jax.data.inputs import AudioFile
from m2l_jax.data.segments import SegmentConfig
from m2l_jax.data.shards import ShardSummary


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
      warnings: source to reason, of files that were taken and are hardly what they should be.
      left_out: files that were not listed, for their suffixes.
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
    warnings: dict[str, str]
    left_out: LeftOut

    def describe(self) -> str:
        """Two or three lines for people."""
        left_out = f'\n{self.left_out.describe()}' if self.left_out.files else ''
        warnings = f', {len(self.warnings)} with warnings' if self.warnings else ''
        return (
            f'{self.files} files, {self.hours_in:.2f} h -> {self.segments} segments, '
            f'{self.hours_out:.2f} h over all channels, in {self.shards} shards, '
            f'{self.bytes / 1e6:.1f} MB\n'
            f'{self.silent_segments} silent segments left out; {len(self.skipped)} files skipped, '
            f'{len(self.damaged)} damaged{warnings} (report.json){left_out}'
        )


def make_report(
    files: Sequence[AudioFile],
    left_out: LeftOut,
    summaries: Sequence[ShardSummary],
    config: SegmentConfig,
) -> Report:
    """Adds up the listed files and the summaries of all shards."""
    used = {source for summary in summaries for source in summary.used}
    damaged = _first_reasons(pair for summary in summaries for pair in summary.damaged)
    odd = _first_reasons(pair for summary in summaries for pair in summary.odd)
    headers = {file.source: file.info.warning for file in files if file.info is not None}
    warnings = {
        source: '; '.join(filter(None, (headers[source], odd.get(source)))) for source in used
    }
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
        warnings={source: reason for source, reason in sorted(warnings.items()) if reason},
        left_out=left_out,
    )


def _first_reasons(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The first reason for each source."""
    reasons: dict[str, str] = {}
    for source, reason in pairs:
        reasons.setdefault(source, reason)
    return reasons

"""One shard: its segments are read, sieved and written, and what came of it is noted beside it."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator

import numpy as np

from m2l_jax.audio import files
from m2l_jax.audio.levels import Levels
from m2l_jax.audio.pcm import to_int16
from m2l_jax.data.segments import Piece, SegmentConfig
from m2l_jax.data.tfds import ShardWriter, segment_format
from m2l_jax.interface import settings
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.json_files import write_json
from m2l_jax.interface.paths import flush, replaced_file

# Float32 values read at a time, over all channels, 64 MB: some three minutes of stereo. Resampling
# needs a few times as much.
_BLOCK_VALUES = 1 << 24


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """What a worker needs to write a shard."""

    path: str
    summary_path: str
    pieces: tuple[Piece, ...]
    config: SegmentConfig


@dataclasses.dataclass(frozen=True)
class ShardSummary:
    """What a complete shard holds, and what was left out of it.

    Attributes:
      bytes: size of the shard.
      segments: records in it.
      samples: of all segments.
      silent: segments left out.
      used: sources that it has segments of.
      damaged: (source, reason) where segments could not be read or are not finite.
      odd: (source, reason) where they were read, and are hardly what they should be.
    """

    bytes: int
    segments: int
    samples: int
    silent: int
    used: tuple[str, ...]
    damaged: tuple[tuple[str, str], ...]
    odd: tuple[tuple[str, str], ...] = ()


def write_shard(job: ShardJob) -> None:
    """Writes a shard, and then its summary; each appears under its name only once it is complete.

    Raises:
      InputError: if either cannot be written. Files that cannot be read are in the summary.
    """
    tally = _Tally()
    with replaced_file(job.path) as partial:
        with ShardWriter(partial, segment_format().features) as writer:
            for piece in job.pieces:
                levels = Levels()
                for offset, segment in _read_segments(piece, job.config, tally, levels):
                    _write_segment(writer, piece, job.config, offset, segment, tally)
                if oddity := _oddity(piece, job.config, levels):
                    tally.odd.setdefault(piece.source, oddity)
        size = partial.stat().st_size
        flush(partial)
    summary = ShardSummary(
        size,
        tally.segments,
        tally.samples,
        tally.silent,
        tuple(tally.used),
        (*tally.damaged.items(),),
        (*tally.odd.items(),),
    )
    write_json(job.summary_path, dataclasses.asdict(summary))


def read_summary(job: ShardJob) -> ShardSummary | None:
    """The summary of a shard that is complete, else None."""
    path = pathlib.Path(job.summary_path)
    try:
        summary = settings.build(ShardSummary, json.loads(path.read_text()), path.name)
        return summary if pathlib.Path(job.path).stat().st_size == summary.bytes else None
    except (OSError, ValueError):
        return None


@dataclasses.dataclass
class _Tally:
    """A summary in the making; dicts keep the order."""

    segments: int = 0
    samples: int = 0
    silent: int = 0
    used: dict[str, None] = dataclasses.field(default_factory=dict)
    damaged: dict[str, str] = dataclasses.field(default_factory=dict)
    odd: dict[str, str] = dataclasses.field(default_factory=dict)


def _oddity(piece: Piece, config: SegmentConfig, levels: Levels) -> str:
    """Says that a file is one number throughout, as far as a piece can tell: if it is all of it."""
    segments = config.count(piece.info.samples_at(config.sample_rate))
    is_whole = piece.stop - piece.first == segments
    return levels.constant() if is_whole else ''


def _read_segments(
    piece: Piece, config: SegmentConfig, tally: _Tally, levels: Levels
) -> Iterator[tuple[int, np.ndarray]]:
    """Each segment's first sample and `[channels, samples]`; after damage the rest is left out."""
    samples = piece.info.samples_at(config.sample_rate)
    step = max(1, _BLOCK_VALUES // (piece.info.channels * config.hop))
    for first in range(piece.first, piece.stop, step):
        bounds = [
            config.bounds(number, samples) for number in range(first, min(first + step, piece.stop))
        ]
        begin, end = bounds[0][0], bounds[-1][1]
        block = _read_finite(piece, config, begin, end, levels)
        if block is not None:
            yield from ((start, block[:, start - begin : stop - begin]) for start, stop in bounds)
            continue
        # One by one, so that damage, or NaN that the resampling filter spreads, takes no more of
        # the file with it than it must.
        for start, stop in bounds:
            try:
                yield start, _read(piece, config, start, stop, levels)
            except InputError as error:
                tally.damaged.setdefault(piece.source, str(error))
                return


def _read_finite(
    piece: Piece, config: SegmentConfig, begin: int, end: int, levels: Levels
) -> np.ndarray | None:
    try:
        block = _read(piece, config, begin, end, levels)
    except InputError:
        return None
    return block if np.isfinite(block).all() else None


def _read(piece: Piece, config: SegmentConfig, begin: int, end: int, levels: Levels) -> np.ndarray:
    """Raises InputError also for what is too loud, of which 16 bits keep the signs only."""
    path = piece.info.path
    waveform = files.read(path, config.sample_rate, begin, end - begin, levels)
    if too_loud := levels.too_loud():
        raise InputError(f'{path} is {too_loud}')
    return waveform


def _write_segment(
    writer: ShardWriter,
    piece: Piece,
    config: SegmentConfig,
    offset: int,
    segment: np.ndarray,
    tally: _Tally,
) -> None:
    """Writes a record for each channel of `[channels, samples]` that is finite and sounds."""
    for channel, waveform in enumerate(segment):
        if not np.isfinite(waveform).all():
            reason = f'{piece.info.path} holds NaN or infinite samples: replace or remove it'
            tally.damaged.setdefault(piece.source, reason)
            continue
        rms = np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))
        if rms < config.min_rms:
            tally.silent += 1
            continue
        writer.write(
            {
                'audio': to_int16(waveform),
                'sample_rate': config.sample_rate,
                'source': piece.source,
                'offset': offset,
                'channel': channel,
                'channels': piece.info.channels,
                'source_sample_rate': piece.info.sample_rate,
                'peak': np.abs(waveform).max(),
                'rms': np.float32(rms),
            }
        )
        tally.segments += 1
        tally.samples += len(waveform)
        tally.used[piece.source] = None

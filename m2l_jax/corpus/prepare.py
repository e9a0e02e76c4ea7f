"""Prepares a TFDS dataset for training: its records are overlapping segments of audio files.

A long file is spread over several shards, so that several processes can work on it.
"""

import concurrent.futures
import dataclasses
import logging
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from m2l_jax.audio import files
from m2l_jax.audio.levels import FULL_SCALE, Levels, to_int16
from m2l_jax.audio.planes import describe_surplus
from m2l_jax.corpus import plan
from m2l_jax.corpus.inputs import find_audio
from m2l_jax.corpus.ledger import Ledger
from m2l_jax.corpus.plan import Advance, Item, Piece, RunOptions, RunReport, Shard, ShardSummary
from m2l_jax.corpus.run import run_job
from m2l_jax.data.segments import SegmentConfig
from m2l_jax.data.tfds import ShardWriter, segment_format
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.paths import replaced_file

_logger = logging.getLogger(__name__)

_BYTES_PER_SAMPLE = 2
# Float32 values read at a time, over all channels: 64 MB, or three minutes of stereo. Resampling
# needs a few times as much.
_BLOCK_VALUES = 1 << 24


def prepare(
    inputs: str, output: str | os.PathLike[str], config: SegmentConfig, options: RunOptions
) -> RunReport:
    """Writes a dataset of audio segments, or its missing shards.

    Args:
      inputs: folder, pattern, file or list; several with commas between.
      output: folder for the dataset: new, empty, or of an earlier run.
      config: of the segments.
      options: the division of the work, with a share: JAX isn't asked for one.

    Raises:
      InputError: if an input is missing, no file can be used, the folder is another job's, or the
        work cannot go on.
      Interrupted: if a stop was requested.
    """
    items, left_out = find_audio(inputs, output, datasets=False)
    with concurrent.futures.ThreadPoolExecutor() as threads:
        listed = list(threads.map(lambda item: _read_header(item, config), items))
    if all(file.problem for file in listed):
        raise InputError(
            f'none of the {len(listed)} audio files in {inputs} can be used: {listed[0].problem}'
        )
    shards = plan_segments(listed, config)
    pieces = [piece for shard in shards for piece in shard.items if not piece.problem]
    segments = sum(
        (piece.stop - piece.first) * (1 if config.stereo else piece.info.channels)
        for piece in pieces
    )
    job = PrepareJob(inputs, os.path.abspath(output), config, len(shards), segments)
    return run_job(job, shards, config.record(), output, options, left_out)


def plan_segments(listed: Sequence[Piece], config: SegmentConfig) -> tuple[Shard, ...]:
    """Fills shards of about `shard_megabytes` with the segments of files.

    Files come in the order of a hash of their names, whatever the order of `listed`; one that
    doesn't fit into a shard goes on in the next.
    """
    budget = config.shard_megabytes * 1e6
    shards: list[Shard] = []
    pieces: list[Piece] = []
    room = budget
    for file in plan.shuffled(listed):
        if file.problem:
            pieces.append(file)
            continue
        cost = config.segment_samples * file.info.channels * _BYTES_PER_SAMPLE
        first, count = 0, config.count(file.info.samples_at(config.sample_rate))
        while first < count:
            taken = min(count - first, max(int(room // cost), room == budget))
            if taken:
                pieces.append(dataclasses.replace(file, first=first, stop=first + taken))
                first, room = first + taken, room - taken * cost
            else:
                shards.append(Shard(len(shards), tuple(pieces)))
                pieces, room = [], budget
    return (*shards, Shard(len(shards), tuple(pieces)))


@dataclasses.dataclass(frozen=True)
class PrepareJob:
    """Prepares shards; a `run.Job` and its worker."""

    inputs: str  # as the user named them, for errors
    folder: str  # for the dataset; all workers see it
    config: SegmentConfig
    shards: int  # in the whole job
    segments: int  # planned; of channels apart, over all channels

    def open(self) -> 'PrepareJob':
        """Returns itself: nothing needs loading."""
        return self

    def work(self, shard: Shard, advance: Advance) -> ShardSummary:
        """Writes a shard; see `run.Worker`.

        A file that is partly silent or damaged gets a warning; if nothing is left, a failure. The
        parts of a file in several shards get warnings only.
        """
        failures: list[tuple[str, str]] = []
        warnings: list[tuple[str, str]] = []
        done, seconds, records = 0, 0.0, 0
        record_format = segment_format(self.config.stereo)
        path = record_format.shard_path(self.folder, shard.number, self.shards)
        with (
            replaced_file(path) as partial,
            ShardWriter(partial, record_format.features) as writer,
        ):
            for piece in shard.items:
                if piece.problem:
                    failures.append((piece.source, piece.problem))
                    continue
                levels = Levels()
                written, problem = self._write_piece(writer, piece, levels, advance)
                records += written
                if not written:
                    problem = problem or f'{piece.path} is silent (RMS below {self.config.min_rms})'
                samples = piece.info.samples_at(self.config.sample_rate)
                is_whole = piece.stop - piece.first == self.config.count(samples)
                if not written and is_whole:
                    failures.append((piece.source, problem))
                    continue
                done += piece.first == 0
                seconds += self._seconds(piece.stop - piece.first)
                header = '' if piece.first else piece.info.warning
                reasons = (header, problem, levels.constant() if is_whole else '')
                warnings += [(piece.source, reason) for reason in reasons if reason]
        output = plan.describe_output(path.parent, path.name, records)
        return ShardSummary(
            shard.number, done, seconds, 0, (output,), tuple(failures), tuple(warnings)
        )

    def complete(self, summaries: Iterable[ShardSummary]) -> None:
        """Writes the metadata by which TFDS opens the dataset.

        Raises:
          InputError: if there are no records; then the job's files are removed.
        """
        summaries = list(summaries)
        outputs = [output for summary in summaries for output in summary.outputs]
        if not any(output.records for output in outputs):
            Ledger(self.folder).discard(summaries)
            reasons = dict(pair for each in summaries for pair in (*each.failures, *each.warnings))
            raise InputError(
                f'none of the {len(reasons)} audio files in {self.inputs} can be used: '
                f'{next(iter(reasons.values()))}'
            )
        lengths = [output.records for output in outputs]
        size = sum(output.bytes for output in outputs)
        record_format = segment_format(self.config.stereo)
        record_format.write_metadata(self.folder, lengths, size, self._describe())
        _logger.info(
            '%d of %d segments are in %d shards, %.1f MB; the others are silent or damaged',
            sum(lengths),
            self.segments,
            len(lengths),
            size / 1e6,
        )

    def _write_piece(
        self, writer: ShardWriter, piece: Piece, levels: Levels, advance: Advance
    ) -> tuple[int, str]:
        """Writes the finite, audible segments of a piece, of channels apart a record each.

        Returns:
          The number of records, and the first problem or ''.
        """
        written, problem = 0, ''
        size = 0 if piece.first else piece.bytes / (piece.stop - piece.first)
        try:
            for offset, segment in self._read_segments(piece, levels):
                for channel, waveform in self._signals(segment):
                    if not np.isfinite(waveform).all():
                        problem = (
                            f'{piece.path} holds NaN or infinite samples: replace or remove it'
                        )
                    else:
                        written += self._write_record(writer, piece, offset, channel, waveform)
                advance(self._seconds(1), size)
        except _DamagedError as error:
            problem = problem or str(error)
        return written, problem

    def _signals(self, segment: np.ndarray) -> Iterable[tuple[dict[str, int], np.ndarray]]:
        """Signals of a segment `[channels, samples]`, a record each, and fields that name them."""
        if self.config.stereo:
            return [({}, segment)]
        return [({'channel': number}, channel) for number, channel in enumerate(segment)]

    def _write_record(
        self,
        writer: ShardWriter,
        piece: Piece,
        offset: int,
        channel: dict[str, int],
        waveform: np.ndarray,
    ) -> bool:
        """Writes a record unless it is silent; returns True if it did."""
        rms = np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))
        if rms < self.config.min_rms:
            return False
        writer.write(
            {
                'audio': to_int16(waveform).T,  # [samples] or [samples, channels]
                'sample_rate': self.config.sample_rate,
                'source': piece.source,
                'offset': offset,
                **channel,
                'channels': piece.info.channels,
                'source_sample_rate': piece.info.sample_rate,
                'peak': np.abs(waveform).max(),
                'rms': np.float32(rms),
            }
        )
        return True

    def _read_segments(self, piece: Piece, levels: Levels) -> Iterator[tuple[int, np.ndarray]]:
        """Yields each segment's first sample and `[channels, samples]`; raises a _DamagedError."""
        config = self.config
        samples = piece.info.samples_at(config.sample_rate)
        step = max(1, _BLOCK_VALUES // (piece.info.channels * config.hop))
        for first in range(piece.first, piece.stop, step):
            numbers = range(first, min(first + step, piece.stop))
            bounds = [config.bounds(number, samples) for number in numbers]
            begin, end = bounds[0][0], bounds[-1][1]
            try:
                block = self._read(piece, begin, end, levels)
            except _DamagedError:
                block = None
            if block is not None and np.isfinite(block).all():
                for start, stop in bounds:
                    yield start, block[:, start - begin : stop - begin]
                continue
            # One by one: damage, or NaN that the resampling filter spreads, then costs little.
            for start, stop in bounds:
                yield start, self._read(piece, start, stop, levels)

    def _read(self, piece: Piece, begin: int, end: int, levels: Levels) -> np.ndarray:
        """Reads a part of a file; refuses audio so loud that 16 bits would keep only its signs."""
        try:
            waveform = files.read(piece.path, self.config.sample_rate, begin, end - begin, levels)
        except (InputError, OSError) as error:
            raise _DamagedError(str(error)) from None
        if too_loud := levels.too_loud():
            raise _DamagedError(f'{piece.path} is {too_loud}')
        return waveform

    def _seconds(self, segments: int) -> float:
        return segments * self.config.hop / self.config.sample_rate

    def _describe(self) -> str:
        """Returns the dataset's description."""
        config = self.config
        channels = 'all channels' if config.stereo else 'one channel each'
        return (
            f'Segments of {config.segment_samples} samples at {config.sample_rate} Hz, {channels}, '
            f'for crops of {config.crop_samples} samples: consecutive segments of a file '
            f'overlap by {config.crop_samples - 1}, so that every crop lies in exactly one. A '
            f'waveform of full scale 1 is audio / {FULL_SCALE}.'
        )


class _DamagedError(Exception):
    """An error of one file, and not of the disk that is written to."""


def _read_header(item: Item, config: SegmentConfig) -> Piece:
    info, problem = None, ''
    try:
        info = files.read_info(item.path)
    except InputError as error:
        problem = str(error)
    except OSError as error:
        problem = f'{item.path} cannot be read ({error.strerror})'
    if info is not None and info.samples_at(config.sample_rate) < config.crop_samples:
        problem = (
            f'{item.path} is shorter than a crop ({config.crop_samples} samples at '
            f'{config.sample_rate} Hz)'
        )
    if info is not None and config.stereo and (surplus := describe_surplus(info.channels)):
        problem = f'{item.path} {surplus}'
    return Piece(item.source, item.path, item.bytes, info=info, problem=problem)

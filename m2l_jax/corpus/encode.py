"""Encodes a shard: files are read ahead, share batches, and are written as they are done."""

import collections
import contextlib
import dataclasses
import functools
import logging
import os
import pathlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from m2l_jax.audio.levels import Levels
from m2l_jax.codec import mixing
from m2l_jax.codec.batches import AudioRow
from m2l_jax.codec.chunks import Chunk, join_latents
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.corpus import models
from m2l_jax.corpus.formats import FORMATS, Target
from m2l_jax.corpus.inputs import AudioSource, audio_sources, read_ahead
from m2l_jax.corpus.plan import Advance, Shard, ShardSummary
from m2l_jax.corpus.store import StoredLatents, to_storage
from m2l_jax.interface.errors import InputError
from m2l_jax.model.config import ModelConfig

_READERS = min(16, 2 * (os.cpu_count() or 1))  # disks wait, and cores decode
_BLOCK_SECONDS = 30  # of audio that is decoded at once
_CHUNKS_AHEAD = 2  # of each file that is being read

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class EncodeSettings:
    """Settings that latents depend on, beside the audio.

    Attributes:
      model: id of the model.
      format: one of `formats.FORMATS`: 'npz' or 'npy', a file each, or 'tfds', a dataset.
      storage: dtype of the stored numbers, one of `store.STORAGE_DTYPES`, or `store.TOKEN_DTYPE`.
      kind: 'latents', 'features' before the bottleneck, or 'tokens' of a discrete model.
      dtype: of the computation.
      sample_rate: in Hz; audio is resampled to it.
      chunk_seconds: longest stretch that is encoded at once.
      overlap_seconds: shared by consecutive stretches.
      channel_mode: 'each', 'mono', 'mid_side' or, of stereo models, 'joint'; see `codec.mixing`.
      pad: True to complete the last latent vector with silence.
    """

    model: str
    format: str = 'npz'
    storage: str = 'float32'
    kind: str = 'latents'
    dtype: str = 'float32'
    sample_rate: int = 44_100
    chunk_seconds: float = 60.0
    overlap_seconds: float = 0.0
    channel_mode: str = 'each'
    pad: bool = False

    def __post_init__(self):
        if not 1000 <= self.sample_rate <= 1_000_000:
            raise InputError(f'--sample_rate={self.sample_rate} must be from 1000 to 1000000')
        models.check_chunks(self)

    def target(self, config: ModelConfig, folder: str | os.PathLike[str], shards: int) -> Target:
        """Describes the output in a folder, of a job with a number of shards."""
        width = config.feature_channels if self.kind == 'features' else config.latent_channels
        return Target(pathlib.Path(folder).absolute(), self.format, width, self.storage, shards)


class EncodeJob(models.ModelJob):
    """Encodes shards into a `Target`."""

    def open(self) -> 'EncodeWorker':
        """Loads the model."""
        return EncodeWorker(self)

    def complete(self, summaries: Iterable[ShardSummary]) -> None:
        """Finishes the output; see `run.Job`."""
        FORMATS[self.target.format].complete(self.target, summaries)


class EncodeWorker:
    """Encodes shards with a loaded model."""

    def __init__(self, job: EncodeJob):
        self._target = job.target
        self._settings = job.settings
        self._codec = job.load()
        mixing.choose_mode(job.settings.channel_mode, self._codec.config.audio_channels > 1)
        self._chunking = models.chunking_of(self._codec, job.settings, job.settings.sample_rate)
        self._batch_rows = models.rows_at_once(self._codec, self._chunking, job.batch_size)
        self._mono = threading.Lock()  # held for good once such a file has been logged

    def work(self, shard: Shard, advance: Advance) -> ShardSummary:
        """Encodes a shard; see `run.Worker`. Latents depend on nothing beyond the shard."""
        failures: dict[str, str] = {}
        warnings: list[tuple[str, str]] = []
        seconds, latents, done = 0.0, 0, 0
        files = self._described(audio_sources(shard.items), failures)
        with (
            FORMATS[self._target.format](self._target, shard.number) as sink,
            contextlib.closing(self._encode(files, failures, advance)) as encoded,
        ):
            for file, stored in encoded:
                name = file.source.name
                warnings += [(name, reason) for reason in file.oddities()]
                try:
                    kept = self._to_storage(stored.latents, name)
                    stored = dataclasses.replace(stored, latents=kept)
                    sink.check(name, stored)
                except InputError as error:
                    failures[name] = str(error)
                    continue
                sink.write(name, stored)
                done, seconds = done + 1, seconds + stored.samples / stored.sample_rate
                latents += kept.shape[0] * kept.shape[2]
        return ShardSummary(
            shard.number,
            done,
            seconds,
            latents,
            tuple(sink.outputs),
            tuple(sorted(failures.items())),
            tuple(sorted(warnings)),
        )

    def _to_storage(self, encoded: np.ndarray, name: str) -> np.ndarray:
        if self._settings.kind == 'tokens':
            return self._codec.to_tokens(to_storage(encoded, 'float32', name))
        return to_storage(encoded, self._settings.storage, name)

    def _described(self, sources: Sequence[AudioSource], failures: dict[str, str]) -> list['_File']:
        """Selects the usable files, the longest first: files of like length share batches."""

        def describe(source: AudioSource) -> _File | InputError:
            try:
                samples, channels, warning = source.describe(self._settings.sample_rate)
                mixed = mixing.mixed_channels(channels, self._settings.channel_mode)
                rows = self._codec.sequences(mixed)
                if channels == 1:
                    self._log_mono(source.name)
                filled = self._codec.padded_samples(samples) if self._settings.pad else samples
                chunks = self._chunking.cut(self._codec.latents_in(filled))
                return _File(source, samples, chunks, rows * len(chunks), warning)
            except (InputError, OSError) as error:
                return InputError(_reason(error))

        with ThreadPoolExecutor(_READERS) as threads:
            described = list(zip(sources, threads.map(describe, sources), strict=True))
        failures |= {s.name: str(e) for s, e in described if isinstance(e, InputError)}
        usable = [file for _, file in described if isinstance(file, _File)]
        return sorted(usable, key=lambda file: -file.samples)

    def _log_mono(self, name: str) -> None:
        if self._settings.channel_mode == 'joint' and self._mono.acquire(blocking=False):
            _logger.info(
                '%s is mono: this stereo model encodes it, and others like it, as both of its '
                'channels, and decodes two',
                name,
            )

    def _encode(
        self, files: Sequence['_File'], failures: dict[str, str], advance: Advance
    ) -> Iterator[tuple['_File', StoredLatents]]:
        """Yields the latents of each file that can be read to its end, in the order of `files`."""
        settings = self._settings
        under_way: collections.deque[_File] = collections.deque()  # the file of each row
        results = self._codec.encode_rows(
            self._rows(files, under_way, failures),
            self._chunking,
            self._batch_rows,
            settings.kind == 'features',
        )
        for encoded in results:
            file = under_way.popleft()
            file.encoded.append(encoded)
            advance(
                file.samples / settings.sample_rate / file.rows, file.source.item.bytes / file.rows
            )
            if len(file.encoded) == file.rows:
                yield file, self._joined(file)
                file.encoded.clear()

    def _rows(
        self,
        files: Sequence['_File'],
        under_way: collections.deque['_File'],
        failures: dict[str, str],
    ) -> Iterator[AudioRow]:
        """Yields the rows of all files, and appends the file of each to `under_way`."""
        readers = [functools.partial(self._read, file) for file in files]
        with contextlib.closing(read_ahead(readers, _READERS, _CHUNKS_AHEAD)) as streams:
            for file, stream in zip(files, streams, strict=True):
                try:
                    for rows in stream:
                        under_way.extend([file] * len(rows))
                        yield from rows
                except (InputError, OSError) as error:
                    failures[file.source.name] = _reason(error)

    def _read(self, file: '_File') -> Iterator[list[AudioRow]]:
        """Yields the rows of each chunk of a file."""
        settings = self._settings
        block = _BLOCK_SECONDS * settings.sample_rate
        blocks = file.source.blocks(settings.sample_rate, block, file.levels)
        mixed = (mixing.mix(block, settings.channel_mode) for block in blocks)
        return chunk_rows(self._codec, mixed, file.chunks)

    def _joined(self, file: '_File') -> StoredLatents:
        channels = file.rows // len(file.chunks)
        parts = [
            np.stack(file.encoded[begin : begin + channels])
            for begin in range(0, file.rows, channels)
        ]
        kind = self._settings.kind
        return StoredLatents(
            join_latents(parts, file.chunks, self._chunking.overlap),
            self._settings.sample_rate,
            file.samples,
            self._codec.config.latent_scale if kind == 'latents' else 1.0,
            self._settings.model,
            self._settings.channel_mode,
            tuple(chunk.begin for chunk in file.chunks),
            kind,
            self._codec.config.levels if kind == 'tokens' else None,
        )


@dataclasses.dataclass
class _File:
    """A file that is being encoded."""

    source: AudioSource
    samples: int  # of a channel, at the rate of the encoding
    chunks: list[Chunk]  # of a channel
    rows: int  # of all channels and chunks
    warning: str  # about the header, or ''
    levels: Levels = dataclasses.field(default_factory=Levels)  # of the audio read so far
    encoded: list[np.ndarray] = dataclasses.field(default_factory=list)  # rows so far

    def oddities(self) -> list[str]:
        """Returns warnings, once the whole file has been read."""
        return [reason for reason in (self.warning, self.levels.oddity()) if reason]


def chunk_rows(
    codec: EncoderDecoder, blocks: Iterator[np.ndarray], chunks: Sequence[Chunk]
) -> Iterator[list[AudioRow]]:
    """Cuts consecutive blocks `[channels, N]` into the rows of each chunk; holds two in memory.

    Silence completes the last chunk; audio after it is read and left out.

    Args:
      codec: encodes the rows.
      blocks: of audio.
      chunks: of the whole, see `Chunking.cut`.
    """
    step, reach = codec.samples_per_latent, codec.reach
    window, offset, start = next(blocks), 0, None
    for chunk in chunks:
        begin, end = chunk.begin * step, chunk.end * step + reach
        parts, offset = [window[:, begin - offset :]], begin
        missing = end - begin - parts[0].shape[1]
        while missing > 0:
            block = next(blocks, None)
            parts.append(np.zeros((len(window), missing), np.float32) if block is None else block)
            missing -= parts[-1].shape[1]
        window = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
        stretch = window[:, : end - begin]
        start = stretch if start is None else start
        if chunk is chunks[-1]:
            for _ in blocks:  # damage shows at the end of a file at the latest
                pass
        yield codec.audio_rows(stretch, chunk, start)


def _reason(error: InputError | OSError) -> str:
    """Returns the reason: the file isn't audio, or the disk or network fails."""
    if isinstance(error, OSError):
        return f'{error.filename or "it"} cannot be read ({error.strerror or error})'
    return str(error)

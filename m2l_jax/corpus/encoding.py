"""Encoding a shard: its files are read ahead, share batches, and are written as they are done."""

import collections
import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from m2l_jax.audio.levels import Levels
from m2l_jax.codec.batches import AudioRow
from m2l_jax.codec.chunks import Chunk
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.codec.seams import join_latents
from m2l_jax.corpus.audio_chunks import chunk_rows, mix, mixed_channels
from m2l_jax.corpus.models import check_chunks, chunking_of, load_same_codec, rows_at_once
from m2l_jax.corpus.outputs import FileFormat, LatentFormat
from m2l_jax.corpus.plan import Shard
from m2l_jax.corpus.read_ahead import read_ahead
from m2l_jax.corpus.sources import AudioSource, audio_sources
from m2l_jax.corpus.store import StoredLatents, to_storage
from m2l_jax.corpus.summary import ShardSummary
from m2l_jax.interface.errors import InputError
from m2l_jax.model.config import ModelConfig

_READERS = min(16, 2 * (os.cpu_count() or 1))  # disks wait, and cores decode
_BLOCK_SECONDS = 30  # of audio that is decoded at once
_CHUNKS_AHEAD = 2  # of each file that is being read


@dataclasses.dataclass(frozen=True)
class EncodeSettings:
    """All that the latents of a corpus depend on, beside the audio.

    Attributes:
      model: id of the model.
      format: 'npz' or 'npy', a file each, or 'tfds', records of a dataset.
      storage: dtype of what is written: 'float32', 'float16' or 'bfloat16'.
      kind: 'latents', or 'features' before the bottleneck.
      dtype: of the computation.
      sample_rate: that audio is resampled to, in Hz.
      chunk_seconds: longest stretch that is encoded at once.
      overlap_seconds: that such stretches share.
      channel_mode: 'each', 'mono' or 'mid_side', see `audio_chunks.mix`.
      pad: whether silence completes the last latent vector.
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
        check_chunks(self)


@dataclasses.dataclass(frozen=True)
class EncodeJob:
    """Encoding of shards into a folder.

    Attributes:
      checkpoint: of the model, or None for the released one.
      folder: for the results, which all workers see.
      settings: how.
      batch_size: chunks that a device encodes at once, or None for what it has room for; of
        shorter audio, on accelerators, more.
      shards: of the whole job.
    """

    checkpoint: str | None
    folder: str
    settings: EncodeSettings
    batch_size: int | None
    shards: int

    def open(self) -> 'EncodeWorker':
        """Loads the model on all of this process's devices."""
        return EncodeWorker(self, load_same_codec(self.checkpoint, self.settings))


class EncodeWorker:
    """Encodes shards, with a model that is loaded."""

    def __init__(self, job: EncodeJob, codec: EncoderDecoder):
        self._job = job
        self._settings = job.settings
        self._codec = codec
        self._chunking = chunking_of(codec, job.settings, job.settings.sample_rate)
        self._format = latent_format(codec.config, job)

    def work(self, shard: Shard, tell: Callable[[float], None]) -> ShardSummary:
        """Encodes a shard; see `job.Worker`.

        The longest files come first, so that what shares a batch is of like length. What they
        give depends on nothing beyond the shard.
        """
        failures: dict[str, str] = {}
        warnings: list[tuple[str, str]] = []
        seconds, latents, done = 0.0, 0, 0
        files = self._described(audio_sources(shard.items), failures)
        with (
            self._format.opened(shard.number) as sink,
            contextlib.closing(self._encode(files, failures, tell)) as encoded,
        ):
            for file, stored in encoded:
                name = file.source.name
                warnings += [(name, reason) for reason in file.oddities()]
                try:
                    kept = to_storage(stored.latents, self._settings.storage, name)
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
            sink.outputs(),
            tuple(sorted(failures.items())),
            tuple(sorted(warnings)),
        )

    def _described(self, sources: Sequence[AudioSource], failures: dict[str, str]) -> list['_File']:
        """Those that can be encoded as far as their headers tell, the longest first."""

        def describe(source: AudioSource) -> _File | InputError:
            try:
                samples, channels, warning = source.describe(self._settings.sample_rate)
                rows = mixed_channels(channels, self._settings.channel_mode)
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

    def _encode(
        self, files: Sequence['_File'], failures: dict[str, str], tell: Callable[[float], None]
    ) -> Iterator[tuple['_File', StoredLatents]]:
        """The latents of each file that can be read to its end, in the order of `files`."""
        settings = self._settings
        under_way: collections.deque[_File] = collections.deque()  # the file of each row
        results = self._codec.encode_rows(
            self._rows(files, under_way, failures),
            self._chunking,
            rows_at_once(self._codec, self._chunking, self._job.batch_size),
            settings.kind == 'features',
        )
        for encoded in results:
            file = under_way.popleft()
            file.encoded.append(encoded)
            tell(file.samples / settings.sample_rate / file.rows)
            if len(file.encoded) == file.rows:
                yield file, self._joined(file)
                file.encoded.clear()

    def _rows(
        self,
        files: Sequence['_File'],
        under_way: collections.deque['_File'],
        failures: dict[str, str],
    ) -> Iterator[AudioRow]:
        """The rows of all files; each one's file is appended to `under_way`."""
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
        """The rows of each chunk of a file."""
        settings = self._settings
        block = _BLOCK_SECONDS * settings.sample_rate
        blocks = file.source.blocks(settings.sample_rate, block, file.levels)
        mixed = (mix(block, settings.channel_mode) for block in blocks)
        return chunk_rows(self._codec, mixed, file.chunks)

    def _joined(self, file: '_File') -> StoredLatents:
        channels = file.rows // len(file.chunks)
        parts = [
            np.stack(file.encoded[begin : begin + channels])
            for begin in range(0, file.rows, channels)
        ]
        return StoredLatents(
            join_latents(parts, file.chunks, self._chunking.overlap),
            self._settings.sample_rate,
            file.samples,
            self._codec.config.latent_scale if self._settings.kind == 'latents' else 1.0,
            self._settings.model,
            self._settings.channel_mode,
            tuple(chunk.begin for chunk in file.chunks),
            self._settings.kind,
        )


@dataclasses.dataclass
class _File:
    """A file that is being encoded.

    Attributes:
      source: where it is read.
      samples: of a channel, at the rate that it is encoded at.
      chunks: of it.
      rows: of all channels of all chunks.
      warning: what its header has otherwise than it is, or nothing.
      levels: of what has been read.
      encoded: what has come of the rows so far.
    """

    source: AudioSource
    samples: int
    chunks: list[Chunk]
    rows: int
    warning: str
    levels: Levels = dataclasses.field(default_factory=Levels)
    encoded: list[np.ndarray] = dataclasses.field(default_factory=list)

    def oddities(self) -> list[str]:
        """Lines on what is odd about it, once all of it has been read."""
        return [reason for reason in (self.warning, self.levels.oddity()) if reason]


def _reason(error: InputError | OSError) -> str:
    """Why a file cannot be encoded: it is no audio, or the disk or network fails."""
    if isinstance(error, OSError):
        return f'{error.filename or "it"} cannot be read ({error.strerror or error})'
    return str(error)


def latent_format(config: ModelConfig, job: EncodeJob) -> LatentFormat:
    """How a job's latents are written."""
    settings, folder = job.settings, pathlib.Path(job.folder)
    if settings.format != 'tfds':
        return FileFormat(folder, f'.{settings.format}')
    from m2l_jax.corpus.dataset_outputs import DatasetFormat  # TFDS, which takes seconds to import

    width = config.latent_channels if settings.kind == 'latents' else config.feature_channels
    return DatasetFormat(folder, width, settings.storage, job.shards)

"""Encoding a shard: files are read ahead, share batches, and are written as they are done."""

import collections
import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from m2l_jax.audio.levels import Levels
from m2l_jax.codec.batches import AudioRow
from m2l_jax.codec.chunks import Chunk, join_latents
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.corpus.formats import Target
from m2l_jax.corpus.inputs import AudioSource, audio_sources
from m2l_jax.corpus.models import check_chunks, chunking_of, load_same_codec, rows_at_once
from m2l_jax.corpus.plan import Shard, ShardSummary
from m2l_jax.corpus.reading import chunk_rows, mix, mixed_channels, read_ahead
from m2l_jax.corpus.store import StoredLatents, to_storage
from m2l_jax.interface.errors import InputError
from m2l_jax.model.config import ModelConfig

_READERS = min(16, 2 * (os.cpu_count() or 1))  # disks wait, and cores decode
_BLOCK_SECONDS = 30  # of audio that is decoded at once
_CHUNKS_AHEAD = 2  # of each file that is being read


@dataclasses.dataclass(frozen=True)
class EncodeSettings:
    """Settings that the latents of a corpus depend on, beside the audio.

    Attributes:
      model: id of the model.
      format: 'npz' or 'npy', a file each, or 'tfds', records of a dataset.
      storage: dtype of what is written: 'float32', 'float16' or 'bfloat16'.
      kind: 'latents', or 'features' before the bottleneck.
      dtype: dtype of the computation.
      sample_rate: rate in Hz, to which audio is resampled.
      chunk_seconds: longest stretch that is encoded at once.
      overlap_seconds: that such stretches share.
      channel_mode: 'each', 'mono' or 'mid_side', see `reading.mix`.
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

    def target(self, config: ModelConfig, folder: str | os.PathLike[str], shards: int) -> Target:
        """Describes the output, in a folder, of a job of so many shards."""
        width = config.latent_channels if self.kind == 'latents' else config.feature_channels
        return Target(pathlib.Path(folder).absolute(), self.format, width, self.storage, shards)


@dataclasses.dataclass(frozen=True)
class EncodeJob:
    """The encoding of shards into a folder.

    Attributes:
      checkpoint: the model's, or None for the released one.
      settings: all that the latents depend on.
      target: the output, which all workers see.
      batch_size: chunks that a device encodes at once, or None for as many as its memory holds; of
        shorter audio, on accelerators, more.
      codec: the model where it is loaded already; None for a job that travels.
    """

    checkpoint: str | None
    settings: EncodeSettings
    target: Target
    batch_size: int | None
    codec: EncoderDecoder | None = None

    def open(self) -> 'EncodeWorker':
        """Loads the model on all of this process's devices."""
        return EncodeWorker(self, self.codec or load_same_codec(self.checkpoint, self.settings))

    def complete(self, summaries: Iterable[ShardSummary]) -> None:
        """Finishes the output; see `run.Job`."""
        self.target.complete(summaries)


class EncodeWorker:
    """Encodes shards, with a model that is loaded."""

    def __init__(self, job: EncodeJob, codec: EncoderDecoder):
        self._target = job.target
        self._settings = job.settings
        self._codec = codec
        self._chunking = chunking_of(codec, job.settings, job.settings.sample_rate)
        self._batch_rows = rows_at_once(codec, self._chunking, job.batch_size)

    def work(self, shard: Shard, tell: Callable[[float], None]) -> ShardSummary:
        """Encodes a shard; see `run.Worker`.

        The longest files come first, so that files of like length share a batch. The latents
        depend on nothing beyond the shard.
        """
        failures: dict[str, str] = {}
        warnings: list[tuple[str, str]] = []
        seconds, latents, done = 0.0, 0, 0
        files = self._described(audio_sources(shard.items), failures)
        with (
            self._target.open(shard.number) as sink,
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
            tuple(sink.outputs),
            tuple(sorted(failures.items())),
            tuple(sorted(warnings)),
        )

    def _described(self, sources: Sequence[AudioSource], failures: dict[str, str]) -> list['_File']:
        """Selects the files whose headers allow it, the longest first."""

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
        """Returns the rows of each chunk of a file."""
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
      source: the audio.
      samples: samples of a channel, at the rate of the encoding.
      chunks: chunks of a channel.
      rows: number of rows, of all channels and chunks.
      warning: a mistake in its header, or ''.
      levels: levels of the audio read so far.
      encoded: rows encoded so far.
    """

    source: AudioSource
    samples: int
    chunks: list[Chunk]
    rows: int
    warning: str
    levels: Levels = dataclasses.field(default_factory=Levels)
    encoded: list[np.ndarray] = dataclasses.field(default_factory=list)

    def oddities(self) -> list[str]:
        """Returns warnings, once all of it has been read."""
        return [reason for reason in (self.warning, self.levels.oddity()) if reason]


def _reason(error: InputError | OSError) -> str:
    """Returns why a file cannot be encoded: it is no audio, or the disk or network fails."""
    if isinstance(error, OSError):
        return f'{error.filename or "it"} cannot be read ({error.strerror or error})'
    return str(error)

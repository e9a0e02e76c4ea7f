"""Decoding a shard: files of latents share batches, and their audio is written as it comes."""

import collections
import dataclasses
import itertools
import logging
import math
import os
import pathlib
import threading
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from m2l_jax.audio import files
from m2l_jax.codec.arrays import check_decoded
from m2l_jax.codec.batches import LatentRow, latent_rows
from m2l_jax.codec.chunks import Chunk
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.corpus.foreign import check_decodable, fit_latents
from m2l_jax.corpus.inputs import read_latent_item
from m2l_jax.corpus.models import check_chunks, chunking_of, load_same_codec, rows_at_once
from m2l_jax.corpus.plan import Item, Output, Shard, ShardSummary, describe_output
from m2l_jax.corpus.reading import unmix
from m2l_jax.corpus.store import SUFFIXES, StoredLatents, check_name, mirrored_name
from m2l_jax.interface.errors import InputError

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class DecodeSettings:
    """All that the audio depends on, beside the latents.

    Attributes:
      model: id of the model.
      format: 'wav', 'flac' or 'ogg', of which each stream has a random number: the same audio,
        but not the same bytes.
      dtype: of the computation.
      denoising_steps: evaluations of the model.
      seed: of the decoding noise.
      chunk_seconds: longest stretch that is decoded at once.
      overlap_seconds: over which such stretches fade into each other; 0 for blunt ends.
      sample_rate: of the audio in Hz, of files that do not say it; None for the model's.
      scale: of the latents, of files that do not say it; None for what `encode` writes.
    """

    model: str
    format: str = 'wav'
    dtype: str = 'float32'
    denoising_steps: int = 1
    seed: int = 0
    chunk_seconds: float = 60.0
    overlap_seconds: float = 2.0
    sample_rate: int | None = None
    scale: float | None = None

    def __post_init__(self):
        check_chunks(self)
        if self.denoising_steps < 1:
            raise InputError(f'--denoising_steps={self.denoising_steps} must be at least 1')
        if self.scale is not None and not 0 < self.scale < math.inf:  # NaN neither
            raise InputError(f'--scale={self.scale} must be a number above 0')


@dataclasses.dataclass(frozen=True)
class DecodeJob:
    """The decoding of shards into a folder.

    Attributes:
      checkpoint: the model's, or None for the released one.
      folder: for the audio, which all workers see.
      settings: all that the audio depends on.
      batch_size: chunks that a device decodes at once, or None for as many as its memory holds; of
        shorter audio, on accelerators, more.
      codec: the model where it is loaded already; None for a job that travels.
    """

    checkpoint: str | None
    folder: str
    settings: DecodeSettings
    batch_size: int | None
    codec: EncoderDecoder | None = None

    def open(self) -> 'DecodeWorker':
        """Loads the model on all of this process's devices."""
        return DecodeWorker(self, self.codec or load_same_codec(self.checkpoint, self.settings))

    def complete(self, summaries: Iterable[ShardSummary]) -> None:
        """Does nothing: the files are complete."""


class DecodeWorker:
    """Decodes shards, with a model that is loaded."""

    def __init__(self, job: DecodeJob, codec: EncoderDecoder):
        self._folder = pathlib.Path(job.folder).absolute()
        self._settings = job.settings
        self._codec = codec
        self._chunking = chunking_of(codec, job.settings, codec.config.spectrogram.sample_rate)
        self._batch_rows = rows_at_once(codec, self._chunking, job.batch_size)
        self._unnamed = threading.Lock()  # held for good once one such file has been logged

    def work(self, shard: Shard, tell: Callable[[float], None]) -> ShardSummary:
        """Decodes a shard; see `run.Worker`."""
        failures: dict[str, str] = {}
        outputs: list[Output] = []
        warnings: list[tuple[str, str]] = []
        seconds, latents = 0.0, 0
        under_way: collections.deque[_File] = collections.deque()
        decoded = self._codec.decode_rows(
            self._rows(shard, under_way, failures, warnings),
            self._chunking,
            self._batch_rows,
            self._settings.denoising_steps,
            self._settings.seed,
        )
        for first in decoded:
            file = under_way.popleft()
            rows = itertools.chain([first], itertools.islice(decoded, file.rows - 1))
            try:
                outputs.append(self._write(file, rows, tell))
            except (_UndecodableError, files.FormatError) as error:
                failures[file.name] = str(error)
                collections.deque(rows, maxlen=0)  # the next row is the next file's
                continue
            seconds, latents = seconds + file.seconds, latents + file.stored.latents[:, 0].size
        return ShardSummary(
            shard.number,
            len(outputs),
            seconds,
            latents,
            tuple(outputs),
            tuple(sorted(failures.items())),
            tuple(sorted((name, line) for name, line in warnings if name not in failures)),
        )

    def _rows(
        self,
        shard: Shard,
        under_way: collections.deque['_File'],
        failures: dict[str, str],
        warnings: list[tuple[str, str]],
    ) -> Iterator[LatentRow]:
        """Yields the rows of all files, and appends each file to `under_way`."""
        # The longest first, as far as sizes tell, so that batches are of like length.
        for item in sorted(shard.items, key=lambda item: -item.bytes):
            try:
                for name, stored in read_latent_item(item):
                    try:
                        opened, lines = self._open(item, name, stored)
                    except InputError as error:
                        failures[name] = str(error)
                        continue
                    warnings += [(name, line) for line in lines]
                    for file in opened:
                        under_way.append(file)
                        yield from latent_rows(file.stored.latents, file.chunks)
            except InputError as error:  # nor can what follows in it be read
                failures[item.source] = str(error)

    def _open(
        self, item: Item, name: str, stored: StoredLatents
    ) -> tuple[list['_File'], list[str]]:
        """Returns the audio files that latents are decoded to, and lines on likely mistakes."""
        settings, output = self._settings, _output_name(item, name)
        _check_path(output)
        fitted, lines = fit_latents(name, stored, self._codec, settings.sample_rate, settings.scale)
        if stored.model is None and self._unnamed.acquire(blocking=False):
            _logger.info(
                '%s does not say its model: it and others like it are decoded with this checkpoint',
                name,
            )
        endings = ['']
        if stored.latents.ndim == 4:
            endings = _numbers(len(fitted))
            _check_numbers_free(item, endings)
        opened = [
            _File(
                name + ending,
                f'{output}{ending}.{settings.format}',
                one,
                self._chunking.cut(one.latents.shape[2]),
            )
            for ending, one in zip(endings, fitted, strict=True)
        ]
        check_name(pathlib.Path(opened[-1].output))
        return opened, lines

    def _write(
        self, file: '_File', rows: Iterator[np.ndarray], tell: Callable[[float], None]
    ) -> Output:
        """Writes the audio of a file as its rows come."""

        def checked(part: np.ndarray) -> np.ndarray:
            tell(file.seconds / len(file.chunks))
            try:
                return check_decoded(
                    part, file.stored.latents, self._codec.config.latent_scale, file.name
                )
            except InputError as error:
                raise _UndecodableError(str(error)) from None

        parts = (checked(np.stack([next(rows) for _ in file.stored.latents])) for _ in file.chunks)
        blocks = self._codec.join(parts, file.chunks, self._chunking)
        audio = _trimmed((unmix(b, file.stored.channel_mode) for b in blocks), file.stored.samples)
        stored, place = file.stored, self._folder / file.output
        files.write_blocks(place, audio, stored.sample_rate, stored.samples)
        return describe_output(self._folder, file.output, 1)


def check_first(item: Item, settings: DecodeSettings) -> None:
    """Checks one input, so that a wrong checkpoint is reported before the output folder is taken.

    Raises:
      InputError: if it can be read, but not be decoded by this model.
    """
    try:
        name, stored = next(read_latent_item(item))
    except (InputError, StopIteration):
        return  # the others may be whole
    check_decodable(name, stored, settings.model)


class _UndecodableError(Exception):
    """An error of one file, and not of the place that is written to."""


@dataclasses.dataclass(frozen=True)
class _File:
    """A file that is being decoded.

    Attributes:
      name: of its latents.
      output: of its audio, below the output folder.
      stored: its latents, as `fit_latents` gives them.
      chunks: of them.
    """

    name: str
    output: str
    stored: StoredLatents
    chunks: list[Chunk]

    @property
    def rows(self) -> int:
        return len(self.stored.latents) * len(self.chunks)

    @property
    def seconds(self) -> float:
        return self.stored.samples / self.stored.sample_rate


def _output_name(item: Item, source: str) -> str:
    """Name without a suffix: a file's own, or the whole of a record's, for a.wav and a.mp3 differ.

    Where there are several inputs, a dataset's name comes before that.
    """
    if source == item.source:
        return mirrored_name(source, '')
    return os.path.join(os.path.dirname(item.source), source)


def _numbers(count: int) -> list[str]:
    """Returns the endings of the names of a batch's files: `-00` to `-11` of twelve."""
    digits = len(str(count - 1))
    return [f'-{number:0{digits}d}' for number in range(count)]


def _check_numbers_free(item: Item, endings: list[str]) -> None:
    """Raises InputError if another input would be decoded to a file of a batch."""
    begin = mirrored_name(item.path, '')
    for ending, suffix in itertools.product(endings, SUFFIXES):
        if os.path.exists(begin + ending + suffix):
            raise InputError(
                f'{item.path} is a batch, and {begin}{ending}{suffix} would become the same audio '
                'file as one of it: rename either'
            )


def _check_path(name: str) -> None:
    """Raises an InputError for a record's name that is no path below a folder."""
    path = pathlib.PurePosixPath(name)
    if path.is_absolute() or '..' in path.parts or not path.name or '\0' in name:
        raise InputError(f'{name!r} is no path below the output folder: encode it again')


def _trimmed(blocks: Iterator[np.ndarray], samples: int) -> Iterator[np.ndarray]:
    """Yields the first `samples` of blocks, and consumes all of them."""
    for block in blocks:
        yield block[:, :samples]
        samples = max(0, samples - block.shape[1])

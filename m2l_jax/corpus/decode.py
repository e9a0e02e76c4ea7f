"""Decodes a shard: files of latents share batches, and their audio is written as it comes."""

import collections
import dataclasses
import itertools
import logging
import math
import os
import pathlib
import threading
from collections.abc import Iterator

import numpy as np

from m2l_jax.audio import files
from m2l_jax.codec import mixing
from m2l_jax.codec.arrays import check_decoded
from m2l_jax.codec.batches import LatentRow, join_channels, latent_rows
from m2l_jax.codec.chunks import Chunk
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.corpus import models, store
from m2l_jax.corpus.formats import is_shard
from m2l_jax.corpus.inputs import read_latent_item
from m2l_jax.corpus.plan import Advance, Item, Output, Shard, ShardSummary, describe_output
from m2l_jax.corpus.store import SUFFIXES, StoredLatents, check_name, mirrored_name
from m2l_jax.interface.errors import InputError

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class DecodeSettings:
    """Settings that audio depends on, beside the latents.

    Attributes:
      model: id of the model.
      format: 'wav', 'flac' or 'ogg'. Ogg files have a random number: the same audio has other
        bytes each time.
      dtype: of the computation.
      denoising_steps: evaluations of the model.
      seed: of the decoding noise.
      chunk_seconds: longest stretch that is decoded at once.
      overlap_seconds: length of the fade between stretches; 0 for none.
      sample_rate: of the audio in Hz, for files that don't say it; None for the model's.
      scale: of the latents, for files that don't say it; None for the one that `encode` writes.
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
        models.check_chunks(self)
        if self.denoising_steps < 1:
            raise InputError(f'--denoising_steps={self.denoising_steps} must be at least 1')
        if self.scale is not None and not 0 < self.scale < math.inf:  # or NaN
            raise InputError(f'--scale={self.scale} must be a number above 0')


class DecodeJob(models.ModelJob):
    """Decodes shards into the folder `target`."""

    def open(self) -> 'DecodeWorker':
        """Loads the model."""
        return DecodeWorker(self)


class DecodeWorker:
    """Decodes shards with a loaded model."""

    def __init__(self, job: DecodeJob):
        self._folder = pathlib.Path(job.target).absolute()
        self._settings = job.settings
        self._codec = job.load()
        sample_rate = self._codec.sample_rate
        self._chunking = models.chunking_of(self._codec, job.settings, sample_rate)
        self._batch_rows = models.rows_at_once(self._codec, self._chunking, job.batch_size)
        self._unnamed = threading.Lock()  # held for good once such a file has been logged

    def work(self, shard: Shard, advance: Advance) -> ShardSummary:
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
                outputs.append(self._write(file, rows, advance))
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
        # The largest first, so that batches are of like length.
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
            except InputError as error:  # the rest of it cannot be read either
                failures[item.source] = str(error)

    def _open(
        self, item: Item, name: str, stored: StoredLatents
    ) -> tuple[list['_File'], list[str]]:
        """Returns the audio files to be made of latents, and warnings."""
        settings, output = self._settings, _output_name(item, name)
        _check_path(output)
        fitted, lines = models.fit_latents(
            name, stored, self._codec, settings.sample_rate, settings.scale
        )
        if stored.model is None and self._unnamed.acquire(blocking=False):
            _logger.info(
                '%s does not say its model: it and others like it are decoded with this checkpoint',
                name,
            )
        endings = ['']
        if stored.latents.ndim == 4:
            digits = len(str(len(fitted) - 1))
            endings = [f'-{number:0{digits}d}' for number in range(len(fitted))]
            _check_numbers_free(item, endings)
        opened = [
            _File(
                name + ending,
                f'{output}{ending}.{settings.format}',
                one,
                self._chunking.cut(one.latents.shape[2]),
                0 if is_shard(item.path) else item.bytes / len(fitted),
            )
            for ending, one in zip(endings, fitted, strict=True)
        ]
        check_name(pathlib.Path(opened[-1].output))
        return opened, lines

    def _write(self, file: '_File', rows: Iterator[np.ndarray], advance: Advance) -> Output:
        """Writes the audio of a file as its rows are decoded."""

        def checked(part: np.ndarray) -> np.ndarray:
            advance(file.seconds / len(file.chunks), file.bytes / len(file.chunks))
            try:
                return check_decoded(
                    part, file.stored.latents, self._codec.config.latent_scale, file.name
                )
            except InputError as error:
                raise _UndecodableError(str(error)) from None

        parts = (
            checked(join_channels([next(rows) for _ in file.stored.latents])) for _ in file.chunks
        )
        blocks = self._codec.join(parts, file.chunks, self._chunking)
        audio = _trimmed(
            (mixing.unmix(b, file.stored.channel_mode) for b in blocks), file.stored.samples
        )
        stored, place = file.stored, self._folder / file.output
        files.write_blocks(place, audio, stored.sample_rate, stored.samples)
        return describe_output(self._folder, file.output, 1)


def stream_file(
    path: str, codec: EncoderDecoder, settings: DecodeSettings
) -> tuple[Iterator[np.ndarray], int, int]:
    """Opens a file of latents, and decodes it as it is wanted, chunk by chunk.

    Returns:
      Blocks `[channels, samples]`, their sample rate in Hz, and the samples of all of them.

    Raises:
      InputError: if it isn't one piece of latents of this model; from the blocks, if a model gives
        NaN.
    """
    if os.path.isdir(path):
        raise InputError(f'{path} is a folder: pass one of its files; m2l_jax.decode takes folders')
    fitted, lines = models.fit_latents(
        path, store.read_any(path), codec, settings.sample_rate, settings.scale
    )
    if len(fitted) > 1:
        raise InputError(
            f'{path} is a batch of {len(fitted)}: m2l_jax.decode writes a file of each'
        )
    for line in lines:
        _logger.warning('%s: %s', path, line)
    stored = fitted[0]
    chunk, overlap = (
        round(seconds * codec.sample_rate)
        for seconds in (settings.chunk_seconds, settings.overlap_seconds)
    )
    blocks = codec.stream(
        [stored.latents], settings.denoising_steps, chunk, seed=settings.seed, overlap=overlap
    )
    unmixed = (mixing.unmix(block, stored.channel_mode) for block in blocks)
    blocks = (np.clip(block, -1, 1) for block in unmixed)
    decoded = stored.latents.shape[2] * codec.samples_per_latent + codec.reach
    return _trimmed(blocks, stored.samples), stored.sample_rate, min(stored.samples, decoded)


def check_first(item: Item, codec: EncoderDecoder) -> None:
    """Raises an InputError for a readable input of another model.

    So a wrong checkpoint is reported before the output folder is claimed.
    """
    try:
        name, stored = next(read_latent_item(item))
    except (InputError, StopIteration):
        return  # the others may be readable
    models.check_decodable(name, stored, codec)


class _UndecodableError(Exception):
    """An error of one file, and not of the disk that is written to."""


@dataclasses.dataclass(frozen=True)
class _File:
    """A file that is being decoded."""

    name: str  # of its latents
    output: str  # path of its audio below the output folder
    stored: StoredLatents  # from `fit_latents`
    chunks: list[Chunk]
    bytes: float  # of the input, 0 if not known

    @property
    def rows(self) -> int:
        return len(self.stored.latents) * len(self.chunks)

    @property
    def seconds(self) -> float:
        return self.stored.samples / self.stored.sample_rate


def _output_name(item: Item, source: str) -> str:
    """Returns an output's name without its suffix, below the dataset's name for a record."""
    if source == item.source:
        return mirrored_name(source, '')
    # A record's own suffix stays: a.wav and a.mp3 are two inputs.
    return os.path.join(os.path.dirname(item.source), source)


def _check_numbers_free(item: Item, endings: list[str]) -> None:
    """Raises an InputError if another input has the output name of a file of a batch."""
    begin = mirrored_name(item.path, '')
    for ending, suffix in itertools.product(endings, SUFFIXES):
        if os.path.exists(begin + ending + suffix):
            raise InputError(
                f'{item.path} is a batch, and {begin}{ending}{suffix} would become the same audio '
                'file as one of it: rename either'
            )


def _check_path(name: str) -> None:
    """Raises an InputError for a record's name that isn't a path below a folder."""
    path = pathlib.PurePosixPath(name)
    if path.is_absolute() or '..' in path.parts or not path.name or '\0' in name:
        raise InputError(f'{name!r} is no path below the output folder: encode it again')


def _trimmed(blocks: Iterator[np.ndarray], samples: int) -> Iterator[np.ndarray]:
    """Yields the first `samples` of blocks, and consumes the rest."""
    for block in blocks:
        yield block[:, :samples]
        samples = max(0, samples - block.shape[1])

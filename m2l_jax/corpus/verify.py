"""Verifies a corpus job: reads all its outputs again."""

import concurrent.futures
import contextlib
import itertools
import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from m2l_jax.audio import files
from m2l_jax.audio.levels import Levels
from m2l_jax.audio.suffixes import AUDIO_SUFFIXES
from m2l_jax.codec.tokens import check_tokens
from m2l_jax.corpus import formats, store
from m2l_jax.corpus.formats import is_shard
from m2l_jax.corpus.ledger import Ledger, read_manifest
from m2l_jax.corpus.plan import Output, digest_file
from m2l_jax.corpus.store import StoredLatents
from m2l_jax.data.tfds import INFO, RecordFormat
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.progress import ProgressBar

_logger = logging.getLogger(__name__)

_THREADS = 8
_BLOCK = 256  # outputs given to the threads at once: there may be millions
_AUDIO_SAMPLES = 1 << 20
_KINDS = (formats.DATASET, 'm2l_audio')

Problem = tuple[str, str]


def verify_job(folder: str | os.PathLike[str]) -> str:
    """Reads all outputs of a complete job again; returns a line to print.

    Raises:
      InputError: if it isn't complete, or an output isn't as it was written.
    """
    totals, outputs, shard_of = read_manifest(folder)
    bar = ProgressBar(totals['bytes'], 'B')
    with contextlib.closing(bar):
        problems = verify(folder, outputs, lambda size: bar.advance(size, 'verified'))
    for name, reason in problems:
        _logger.warning('%s %s', name, reason)
    if problems:
        numbers = sorted({shard_of[name] for name, _ in problems if name in shard_of})
        summaries = ' '.join(Ledger(folder).summary_name(number) for number in numbers)
        raise InputError(
            f'{len(problems)} of {len(outputs)} files in {folder} are not as they were written: '
            f'have them done again by `cd {folder} && rm -f manifest.json {summaries}` and the '
            'command that wrote them'
        )
    return (
        f'{len(outputs)} files with the latents or the audio of {totals["files"]} inputs are as '
        f'they were written; {totals["failures"]} inputs failed'
    )


def verify(
    folder: str | os.PathLike[str],
    outputs: Iterable[Output],
    advance: Callable[[int], None] = lambda _: None,
) -> list[Problem]:
    """Compares every output's size, hash, number of records and shapes; refuses NaN and infinity.

    Args:
      folder: the job's output folder.
      outputs: the files in it, as the job noted them.
      advance: is called with the bytes verified since the last call.

    Returns:
      (name, reason) of each output that isn't as it was written, in the order of `outputs`; and of
      the dataset's own description, if there are shards and it doesn't fit them.
    """
    outputs = iter(outputs)
    record_format, problems = _read_format(folder)
    lengths: dict[str, int] = {}
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
        while block := list(itertools.islice(outputs, _BLOCK)):
            paths = [pathlib.Path(folder, output.name) for output in block]
            reasons = threads.map(_find_problem, paths, block, itertools.repeat(record_format))
            for output, reason in zip(block, reasons, strict=True):
                problems += [(output.name, reason)] if reason else []
                advance(output.bytes)
            shards = [output for output in block if is_shard(output.name)]
            lengths |= {output.name: output.records for output in shards}
    return problems + _compare_lengths(folder, record_format, lengths)


def _read_format(folder: str | os.PathLike[str]) -> tuple[RecordFormat | None, list[Problem]]:
    """Returns the format of the dataset in a folder, if there is one, and its problems."""
    if not os.path.isfile(os.path.join(folder, INFO)):
        return None, []
    try:
        return formats.read_format(folder, _KINDS), []
    except InputError as error:
        return None, [(INFO, str(error))]


def _compare_lengths(
    folder: str | os.PathLike[str],
    record_format: RecordFormat | None,
    lengths: Mapping[str, int],
) -> list[Problem]:
    """Compares the records of each shard with the dataset's own description."""
    if record_format is None:
        without = lengths and not os.path.exists(os.path.join(folder, INFO))
        return [(INFO, 'is missing, and so no shard can be opened')] if without else []
    described = formats.shard_lengths(folder, kinds=_KINDS)
    noted = {os.path.relpath(path, folder): records for path, records in described.items()}
    return [
        (INFO, f'notes {noted.get(name, "no")} records in {name}, not {records}')
        for name, records in lengths.items()
        if noted.get(name) != records
    ]


def _find_problem(path: pathlib.Path, output: Output, record_format: RecordFormat | None) -> str:
    """Returns a reason if an output isn't as it was written, or ''."""
    try:
        size = path.stat().st_size
        if size != output.bytes:
            return f'has {size} bytes, {output.bytes} were written'
        if digest_file(path) != output.sha256:
            return 'was changed since it was written: its SHA-256 is another'
        records = _count_records(path, record_format)
    except FileNotFoundError:
        return 'is missing'
    except OSError as error:
        return f'cannot be read ({error.strerror or error})'
    except InputError as error:
        return str(error)
    if records is not None and records != output.records:
        return f'holds {records} records, {output.records} were written'
    return ''


def _count_records(path: pathlib.Path, record_format: RecordFormat | None) -> int | None:
    """Reads and counts the records in a file; returns None for a file of an unknown kind.

    Raises:
      InputError: if one of them is damaged, or not finite.
    """
    suffix = path.suffix.lower()
    if suffix in store.SUFFIXES:
        _check_values(path, store.read_latents(path))
        return 1
    if is_shard(path.name):
        return None if record_format is None else _count_in_shard(path, record_format)
    if suffix not in AUDIO_SUFFIXES:
        return None
    rate = files.read_info(path).sample_rate
    # This refuses numbers that are not finite; other oddities may come from the input.
    for _ in files.read_blocks(path, rate, _AUDIO_SAMPLES, levels=Levels()):
        pass
    return 1


def _count_in_shard(path: pathlib.Path, record_format: RecordFormat) -> int:
    if record_format.name != formats.DATASET:  # of integers, which are finite
        return sum(1 for _ in formats.read_records(path, record_format))
    records = 0
    for source, stored in formats.read_shard(path, record_format):
        _check_values(f'{path}: {source}', stored)
        records += len(stored.latents)
    return records


def _check_values(name: str | os.PathLike[str], stored: StoredLatents) -> None:
    """Raises an InputError for latents that no encoder writes."""
    frames = stored.latents.shape[2]
    if stored.chunk_offsets[-1] > max(0, frames - 1):
        raise InputError(f'{name} has {frames} frames, and a chunk at {stored.chunk_offsets[-1]}')
    if not np.isfinite(stored.latents).all():
        raise InputError(f'{name} holds NaN or infinity')
    if stored.levels is not None:
        check_tokens(str(name), stored.latents, stored.levels)

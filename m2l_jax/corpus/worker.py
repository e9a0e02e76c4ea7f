"""Encoding and decoding files, one after another; one that fails does not stop the others."""

import os
import pathlib
import sys
import time
from collections.abc import Callable, Collection

from m2l_jax.audio import files
from m2l_jax.codec.arrays import as_waveform
from m2l_jax.codec.encoder_decoder import EncoderDecoder
from m2l_jax.codec.rows import LATENT_SCALE
from m2l_jax.corpus.store import StoredLatents, read_latents, write_latents
from m2l_jax.interface.errors import InputError
from m2l_jax.interface.listing import list_files

Jobs = list[tuple[pathlib.Path, pathlib.Path]]


def plan_jobs(
    source: str | os.PathLike[str],
    suffixes: Collection[str],
    output: str | os.PathLike[str],
    suffix: str,
) -> Jobs:
    """Each input file and where its result goes: the folder's tree, mirrored, with `suffix`.

    Raises:
      InputError: if there are no files, two results would have one name, or a result would
        overwrite an input.
    """
    root = pathlib.Path(source)
    inputs = [pathlib.Path(path) for path in list_files(source, suffixes)]
    if not inputs:
        raise InputError(
            f'no files to work on in {source}: they end in {", ".join(sorted(suffixes))}'
        )
    folder = root if root.is_dir() else root.parent
    output = pathlib.Path(output)
    jobs = [(path, output / path.relative_to(folder).with_suffix(suffix)) for path in inputs]
    taken: dict[pathlib.Path, pathlib.Path] = {}
    for path, target in jobs:
        if target in taken:
            raise InputError(f'{taken[target]} and {path} would both become {target}: rename one')
        if target.resolve() == path.resolve():
            raise InputError(f'{path} would be overwritten: choose another output folder')
        taken[target] = path
    return jobs


def run_jobs(jobs: Jobs, work: Callable[[pathlib.Path, pathlib.Path], str]) -> int:
    """Works on each file and prints a line for it; returns how many failed."""
    failures = 0
    for path, target in jobs:
        begin = time.monotonic()
        try:
            summary = work(path, target)
        except InputError as error:
            failures += 1
            message = str(error)
            named = message if str(path) in message else f'{path}: {message}'
            print(f'error: {named}', file=sys.stderr, flush=True)
        else:
            print(f'{path} -> {target}: {summary}, {time.monotonic() - begin:.1f} s', flush=True)
    return failures


def encode_file(
    codec: EncoderDecoder,
    path: pathlib.Path,
    target: pathlib.Path,
    pad: bool,
    **chunking: int | None,
) -> str:
    """Encodes an audio file; returns what to tell of it.

    Args:
      pad: completes the last latent vector with silence instead of dropping what does not fill it.
      chunking: `max_waveform_length` and `max_batch_size` of `EncoderDecoder.encode`.
    """
    rate = codec.config.spectrogram.sample_rate
    waveform = as_waveform(path, rate)
    encoded = codec.encode(codec.pad(waveform) if pad else waveform, **chunking)
    samples = waveform.shape[1]
    write_latents(target, StoredLatents(encoded, rate, samples, LATENT_SCALE, codec.model_id))
    return f'{samples / rate:.1f} s of audio, latents {"×".join(map(str, encoded.shape))}'


def decode_file(
    codec: EncoderDecoder, path: pathlib.Path, target: pathlib.Path, **options: int | None
) -> str:
    """Decodes a file of latents; returns what to tell of it.

    Raises:
      InputError: if it cannot be read, or is another model's.
    """
    stored = read_latents(path)
    if stored.model != codec.model_id:
        raise InputError(
            f'{path} was encoded by model {stored.model}, this checkpoint is {codec.model_id}: '
            'pass the one that it was encoded with'
        )
    waveform = codec.decode(stored.latents * (stored.scale / LATENT_SCALE), **options)
    waveform = waveform[:, : stored.samples]
    files.write(target, waveform, stored.sample_rate)
    return f'{waveform.shape[1] / stored.sample_rate:.1f} s of audio'
